import re
import subprocess
import sys
from pathlib import Path

import cf_eval
import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_readme_runs(block):
    exec(compile(block, str(README), "exec"), {})


def test_the_readme_shows_code():
    assert BLOCKS


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, cf_eval; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"transformers", "torchvision", "open_clip", "evaluate", "datasets", "matplotlib", "PIL", "scipy"}
    assert not (heavy | {"tyro", "rich", "pycocoevalcap", "cf_eval.cli", "cf_eval.hf"}) & set(
        done.stdout.split()
    )


def test_every_public_name_is_there_once_and_in_order():
    assert len(cf_eval.__all__) == len(set(cf_eval.__all__))
    assert all(hasattr(cf_eval, name) for name in cf_eval.__all__)
