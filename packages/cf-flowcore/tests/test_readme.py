import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_every_python_block_of_the_readme_runs(block):
    exec(compile(block, str(README), "exec"), {})


def test_the_readme_has_a_block_to_run():
    assert BLOCKS
