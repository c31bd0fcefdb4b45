"""kill -9 in the middle of an extraction: finished shards stay as they are, and the set ends as if nothing had been."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.faults
SCRIPT = Path(__file__).with_name("extract_kills.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The folder of three sets, and what became of the killed processes."""
    folder = tmp_path_factory.mktemp("extract")
    command = [sys.executable, str(SCRIPT), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def files(out: Path) -> dict[str, bytes]:
    """Every file of a set, temporary ones and the manifest too."""
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_processes_killed_before_each_file_operation_leave_the_set_of_one_nobody_killed(found):
    folder, killed = found
    assert killed["kills"] >= 8
    whole = files(folder / "whole")
    assert {f"shards/000000-{block:06}.safetensors" for block in range(4)} < whole.keys()
    assert files(folder / "killed") == whole


def test_a_finished_shard_is_never_made_again(found):
    assert found[1]["again"] == []


def test_two_processes_at_the_same_time_leave_the_set_of_one(found):
    assert files(found[0] / "shared") == files(found[0] / "whole")
