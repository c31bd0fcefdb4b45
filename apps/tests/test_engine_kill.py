"""kill -9 at any moment: what was saved loads, and the resumed run ends bit for bit where it would have."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from cf_apps.engine.checkpoint import checkpoints, load_checkpoint

SCRIPT = Path(__file__).with_name("engine_kills.py")


def weights_after_kills(folder, how, steps, kills):
    """Kill and resume in a process of its own; (kills, those within a save) after comparing the two runs."""
    command = [sys.executable, str(SCRIPT), str(folder), how, str(steps), str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    whole, _ = load_checkpoint(checkpoints(folder / "whole")[steps])
    killed, _ = load_checkpoint(checkpoints(folder / "killed")[steps])
    for part, tensors in whole.items():
        assert tensors.keys() == killed[part].keys()
        different = [name for name in tensors if not tensors[name].equal(killed[part][name])]
        assert not different, (part, different)
    assert not list((folder / "killed").glob("checkpoints/.*"))
    assert [path.name for path in checkpoints(folder / "killed").values()] == [
        f"step-{steps - 1:08d}",
        f"step-{steps:08d}",
    ]
    return [int(number) for number in re.findall(r"\d+", done.stdout)][:2]


def test_a_run_killed_before_each_file_operation_ends_bit_equal(tmp_path):
    kills, in_a_save = weights_after_kills(tmp_path, "ordered", steps=10, kills=26)
    assert kills == 26
    assert in_a_save >= 8


@pytest.mark.slow
def test_a_run_killed_at_twenty_random_moments_ends_bit_equal(tmp_path):
    kills, in_a_save = weights_after_kills(
        tmp_path, "random", steps=3000, kills=20
    )  # long enough that no kill finds it done
    assert kills == 20
    assert in_a_save >= 3
