"""What may happen to a run, and what comes of it. Minutes long: `nox -s faults`.

kill -9, at any moment, of one process       resumed, it ends bit for bit where it would have
kill -9 of one of several ranks              the others end at once; resumed, the same
SIGTERM (pre-emption), to one or to a rank   the step is finished and saved, the exit code is 0
a full disk in a save                        the save before is kept and named, and the run can go on from it
a damaged file                               is named; without its folder the run goes on from the one before
another number of processes                  goes on: 2, then 3, then 1
"""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from cf_apps.engine import CheckpointError, RunError, fit, read_log
from cf_apps.engine.saving.checkpoint import MARKER, checkpoint_folder, checkpoints, load_checkpoint

sys.path.insert(0, str(Path(__file__).parent))
from engine_rank_faults import LONG, STEPS
from engine_toy import Toy, config

pytestmark = pytest.mark.faults
HERE = Path(__file__).parent
FLOAT64 = {"rtol": 1e-9, "atol": 1e-11}  # sums in another order, over a few steps of AdamW
LOGGED = 1e-6  # the log's means are in float32


def process(script, *words):
    command = [sys.executable, str(HERE / script), *map(str, words)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def finished(script, *words):
    """Run a script to its end, and well; what it wrote to stdout."""
    running = process(script, *words)
    try:
        out, err = running.communicate(timeout=900)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)  # with the ranks it started
        raise
    assert running.returncode == 0, err
    return out


def tensors(run, step):
    parts, _ = load_checkpoint(checkpoints(run)[step])
    return {f"{part}/{name}": tensor for part, named in parts.items() for name, tensor in named.items()}


def assert_same(left, right):
    assert left.keys() == right.keys()
    assert not [name for name in left if not torch.equal(left[name], right[name])]


def test_a_run_killed_at_twenty_random_moments_ends_bit_equal(tmp_path):
    steps = 2000  # so many that no kill finds the run done
    out = finished("engine_kills.py", tmp_path, "random", steps, 20)
    kills, in_a_save, reached, _ = map(int, re.findall(r"\d+", out))
    assert kills == 20
    assert in_a_save >= 3
    assert 0 < reached < steps
    assert_same(tensors(tmp_path / "whole", steps), tensors(tmp_path / "killed", steps))
    assert list(checkpoints(tmp_path / "killed")) == [steps - steps // 10, steps]
    assert not list((tmp_path / "killed").glob("checkpoints/.*"))


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_a_rank_that_is_killed_ends_the_others_and_the_resumed_run_is_bit_equal(tmp_path, way):
    out = finished("engine_rank_faults.py", tmp_path, "kills", way, 4)
    kills, seconds = map(float, out.split())
    assert kills >= 2
    assert seconds < 60
    assert_same(tensors(tmp_path / f"{way}-whole", LONG), tensors(tmp_path / f"{way}-broken", LONG))


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_a_run_goes_on_with_three_processes_after_two_and_with_one_after_three(tmp_path, way):
    finished("engine_rank_faults.py", tmp_path, "resumes", way)
    whole, broken = tmp_path / f"{way}-whole", tmp_path / f"{way}-broken"
    assert [len(json.loads((folder / MARKER).read_text())) for folder in checkpoints(broken).values()] == [
        3 * 3 + 1,  # step 5, where three ranks were stopped: weights, ema and optimizer of each
        3 + 1,
        3 + 1,
    ]
    expected, found = tensors(whole, STEPS), tensors(broken, STEPS)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, **FLOAT64, msg=name)
    losses = [[record["losses"]["total"] for record in read_log(run)] for run in (whole, broken)]
    assert len(losses[0]) == STEPS
    assert losses[1] == pytest.approx(losses[0], rel=LOGGED)


def test_sigterm_saves_the_step_and_the_process_exits_with_0(tmp_path):
    run, steps = tmp_path / "run", 100_000
    running = process("engine_toy.py", run, steps)
    while not (run / "log.jsonl").exists() or len((run / "log.jsonl").read_text().splitlines()) < 5:
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    running.send_signal(signal.SIGTERM)  # a launcher may pass on what the process group got already
    out, err = running.communicate(timeout=300)
    assert (running.returncode, out, err) == (0, "", "")
    last = max(checkpoints(run))
    assert last == read_log(run)[-1]["step"]
    assert len(read_log(run)) == last  # it logs every step
    assert not list(run.glob("checkpoints/.*"))

    class Stopping(Toy):
        def batch(self, first, size):
            if first == 8 * (last - 1):
                os.kill(os.getpid(), signal.SIGTERM)
            return super().batch(first, size)

    assert not fit(Stopping(), config(steps), tmp_path / "again").finished
    assert_same(tensors(tmp_path / "again", last), tensors(run, last))


def test_a_disk_that_is_full_keeps_the_save_before_and_the_run_goes_on_from_it(tmp_path):
    run, settings = tmp_path / "run", config(5, schedule="constant")
    fit(Toy(), config(2, schedule="constant"), run)
    largest = max(path.stat().st_size for path in checkpoint_folder(run, 2).iterdir())
    before = {path: path.read_bytes() for path in run.glob("checkpoints/*/*")}

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, limits[1]))
    try:
        with pytest.raises(RunError, match=r"cannot save .*step-00000003: .*step 2 is kept, make room"):
            fit(Toy(), settings, run, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path: path.read_bytes() for path in run.glob("checkpoints/*/*")} == before
    fit(Toy(), settings, run, resume=True)
    fit(Toy(), settings, tmp_path / "whole")
    assert_same(tensors(tmp_path / "whole", 5), tensors(run, 5))


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"]
)
def test_a_damaged_file_is_named_and_the_run_goes_on_from_the_save_before(tmp_path, name):
    run, settings = tmp_path / "run", config(4, schedule="constant")
    fit(Toy(), config(3, schedule="constant"), run)
    damaged = checkpoint_folder(run, 3) / name
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 4
    damaged.write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"{re.escape(str(damaged))} is damaged .* remove the folder"):
        fit(Toy(), settings, run, resume=True)
    for path in sorted(damaged.parent.iterdir()):
        path.unlink()
    damaged.parent.rmdir()
    fit(Toy(), settings, run, resume=True)
    fit(Toy(), settings, tmp_path / "whole")
    assert_same(tensors(tmp_path / "whole", 4), tensors(run, 4))
