"""kill -9 at any moment: what was saved loads, and the resumed run ends bit for bit where it would have."""

import re
import subprocess
import sys
from pathlib import Path

from cf_apps.engine.saving.checkpoint import checkpoints, load_checkpoint

SCRIPT = Path(__file__).with_name("engine_kills.py")


def test_a_run_killed_before_each_file_operation_ends_bit_equal(tmp_path):
    command = [sys.executable, str(SCRIPT), str(tmp_path), "ordered", "10", "26"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    kills, in_a_save = map(int, re.findall(r"\d+", done.stdout)[:2])
    assert kills == 26
    assert in_a_save >= 8
    assert list(checkpoints(tmp_path / "killed")) == [9, 10]
    assert not list((tmp_path / "killed").glob("checkpoints/.*"))
    whole, killed = (load_checkpoint(checkpoints(tmp_path / run)[10])[0] for run in ("whole", "killed"))
    for part, tensors in whole.items():
        assert tensors.keys() == killed[part].keys()
        assert not [name for name in tensors if not tensors[name].equal(killed[part][name])]
