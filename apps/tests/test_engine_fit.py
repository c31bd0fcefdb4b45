"""The loop: it learns, repeats bit for bit, resumes exactly, stops politely and says what is wrong."""

import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from cf_apps.engine import fit, read_log
from cf_apps.engine.state import named_tensors

sys.path.insert(0, str(Path(__file__).parent))
from engine_toy import Toy, config


def trained(run, steps, resume=False, **changes):
    task = Toy()
    result = fit(task, config(steps, **changes), run, resume=resume)
    return task, result


def tensors(task, result):
    return named_tensors(task.modules) | {f"ema.{k}": v for k, v in result.ema.state().items()}


def assert_same(left, right):
    assert left.keys() == right.keys()
    different = [name for name in left if not torch.equal(left[name], right[name])]
    assert not different


def test_training_lowers_the_loss(tmp_path):
    trained(tmp_path / "run", 150, save_every=1000, lr=3e-2)
    losses = [record["losses"]["fit"] for record in read_log(tmp_path / "run")]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_the_same_seed_gives_the_same_weights_bit_for_bit(tmp_path):
    assert_same(tensors(*trained(tmp_path / "a", 6)), tensors(*trained(tmp_path / "b", 6)))


def test_another_seed_gives_other_weights(tmp_path):
    a, b = tensors(*trained(tmp_path / "a", 6)), tensors(*trained(tmp_path / "b", 6, seed=1))
    assert not torch.equal(a["net.0.weight"], b["net.0.weight"])


@pytest.mark.parametrize("stopped_at", [1, 4, 7])
@pytest.mark.parametrize("changes", [{}, {"accumulate": 2}, {"precision": "bf16"}])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, stopped_at, changes):
    whole = trained(tmp_path / "whole", 9, **changes)

    class Stopping(Toy):
        def batch(self, first, size):
            if first == (stopped_at - 1) * 8:
                os.kill(os.getpid(), signal.SIGTERM)  # asks to stop after this step
            return super().batch(first, size)

    part = fit(Stopping(), config(9, save_every=1000, **changes), tmp_path / "parts")
    assert (part.step, part.finished) == (stopped_at, False)
    rest = trained(tmp_path / "parts", 9, resume=True, save_every=1000, **changes)
    assert rest[1].finished
    assert_same(tensors(*whole), tensors(*rest))
    steps = [record["step"] for record in read_log(tmp_path / "parts")]
    assert steps == list(range(1, 10))
