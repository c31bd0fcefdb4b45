import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_readme_runs(block):
    exec(compile(block, str(README), "exec"), {})


def test_the_readme_shows_code():
    assert BLOCKS


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, cf_encoders; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"transformers", "tokenizers", "datasets", "matplotlib", "PIL", "scipy", "open_clip", "diffusers"}
    assert not heavy & set(done.stdout.split())
