"""Saving behind the training: the copy is of the moment, errors come up, and what is kept follows the settings."""

import hashlib
import json
import sys
import threading
from pathlib import Path

import pytest
import torch
from cf_apps.engine import CheckpointError, Losses, RunError
from cf_apps.engine.ranks.world import World
from cf_apps.engine.saving import saver
from cf_apps.engine.saving.checkpoint import (
    checkpoint_folder,
    checkpoints,
    kept,
    load_checkpoint,
    open_checkpoint,
    save_checkpoint,
)
from cf_apps.engine.saving.saver import Saver, copied, dealt
from cf_apps.engine.saving.state import TrainState
from cf_apps.engine.seeds import step_generator
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from engine_toy import Toy, config


def trained(task, steps=2):
    """A state after some steps of the toy, without the loop."""
    state = TrainState.fresh(task, config(9))
    for _ in range(steps):
        step(task, state)
    return state


def step(task, state):
    batch = task.batch(8 * state.step, 8)
    losses: Losses = task.losses(batch, step_generator("cpu", state.step), 0.0)
    losses.total.backward()
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.ema.update()
    state.step += 1


def flat(parts):
    return {
        f"{part}/{name}": tensor.clone() for part, named in parts.items() for name, tensor in named.items()
    }


def assert_equal(left, right):
    assert left.keys() == right.keys()
    assert not [name for name in left if not torch.equal(left[name], right[name])]


@pytest.fixture
def gate(monkeypatch):
    """Saves wait for it to be set."""
    opened = threading.Event()

    def waiting(*arguments):
        assert opened.wait(60)
        return save_checkpoint(*arguments)

    monkeypatch.setattr(saver, "save_checkpoint", waiting)
    return opened


def test_the_step_waits_for_the_copy_only_and_later_steps_do_not_show_in_it(tmp_path, gate):
    task = Toy()
    state = trained(task)
    state.extra = {"guard": {"skipped": [5]}}
    with Saver(tmp_path) as behind:
        behind.save(state)
        saved, numbers = flat(state.parts()), json.loads(json.dumps(state.numbers()))
        step(task, state)
        state.extra["guard"]["skipped"].append(6)
        assert checkpoints(tmp_path) == {}  # the disk has not been touched
        gate.set()
    parts, read = load_checkpoint(checkpoint_folder(tmp_path, 2))
    assert_equal(flat(parts), saved)
    assert read == numbers
    assert not torch.equal(saved["weights/net.0.weight"], flat(state.parts())["weights/net.0.weight"])


def test_a_save_waits_for_the_one_before(tmp_path, gate):
    task = Toy()
    state = trained(task)
    with Saver(tmp_path, keep_last=5) as behind:
        behind.save(state)
        step(task, state)
        threading.Timer(0.2, gate.set).start()
        behind.save(state)
        assert min(checkpoints(tmp_path)) == 2
    assert list(checkpoints(tmp_path)) == [2, 3]


def test_the_same_step_is_not_copied_twice(tmp_path, monkeypatch):
    copies = []
    monkeypatch.setattr(saver, "copied", lambda *of: copies.append(of) or copied(*of))
    task = Toy()
    state = trained(task)
    with Saver(tmp_path) as behind:
        behind.save(state)
        behind.save(state)  # the end of a run, right after a save
        step(task, state)
        behind.save(state)
    assert len(copies) == 2
    assert list(checkpoints(tmp_path)) == [2, 3]


@pytest.fixture
def broken(monkeypatch):
    def fail(*_):
        raise RunError("cannot save: No space left on device")

    monkeypatch.setattr(saver, "save_checkpoint", fail)


def test_a_failed_save_is_told_by_the_next_one(tmp_path, broken):
    state = trained(Toy())
    behind = Saver(tmp_path)
    behind.save(state)
    with pytest.raises(RunError, match="No space left"):
        behind.save(state)
    behind.wait()  # told once


def test_a_failed_save_is_told_at_the_end(tmp_path, broken):
    with pytest.raises(RunError, match="No space left"), Saver(tmp_path) as behind:
        behind.save(trained(Toy()))


def test_the_error_of_the_training_comes_first_and_the_save_is_still_finished(tmp_path, gate):
    with pytest.raises(ZeroDivisionError), Saver(tmp_path) as behind:  # noqa: PT012
        behind.save(trained(Toy()))
        threading.Timer(0.2, gate.set).start()
        raise ZeroDivisionError
    assert list(checkpoints(tmp_path)) == [2]


def test_a_run_goes_on_with_all_that_the_state_carries(tmp_path):
    task, other = Toy(), Toy()  # of the same data, and weights that differ by then
    state, fresh = trained(task), TrainState.fresh(other, config(9))
    state.elapsed, state.extra = 0.1 + 0.2, {"guard": {"skipped": [7, 8], "median": 1 / 3}}
    with Saver(tmp_path) as behind:
        assert behind.resume(fresh) is None
        behind.save(state)
    assert Saver(tmp_path).resume(fresh) == checkpoint_folder(tmp_path, 2)
    assert_equal(flat(fresh.parts()), flat(state.parts()))
    assert fresh.numbers() == state.numbers()
    for _ in range(2):  # and the next steps are the same, too
        for toy, of in ((task, state), (other, fresh)):
            torch.manual_seed(of.step)  # of dropout
            step(toy, of)
    assert_equal(flat(fresh.parts()), flat(state.parts()))


class Small(Toy):
    """A net with a convolution in channels-last, a number, and a frozen layer."""

    def __init__(self):
        self.no_decay = ()
        conv = nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)
        net = nn.ModuleDict({"conv": conv, "head": nn.Linear(5, 2), "frozen": nn.Linear(2, 2)})
        net["conv"].register_parameter("log_scale", nn.Parameter(torch.tensor(0.5)))
        net["frozen"].requires_grad_(False)
        self.modules = net

    def train(self, state):
        x = torch.randn(4, 3, 8, 8, generator=step_generator("cpu", state.step))
        y = self.modules["conv"](x).mean((2, 3)) * self.modules["conv"].log_scale.exp()
        self.modules["head"](y).square().sum().backward()
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.ema.update()
        state.step += 1


def test_moments_come_back_in_the_memory_format_of_their_parameter(tmp_path):
    first, second = Small(), Small()
    states = [TrainState.fresh(task, config(9)) for task in (first, second)]
    first.train(states[0])
    with Saver(tmp_path) as behind:
        behind.save(states[0])
    Saver(tmp_path).resume(states[1])
    weight = second.modules["conv"].weight
    moments = states[1].optimizer.state[weight]
    assert (
        moments["exp_avg"].stride()
        == weight.stride()
        == states[0].optimizer.state[first.modules["conv"].weight]["exp_avg"].stride()
    )
    assert weight.stride() != torch.empty(weight.shape).stride()
    for task, state in zip((first, second), states, strict=True):
        task.train(state)
    assert_equal(flat(states[0].parts()), flat(states[1].parts()))


def test_a_checkpoint_of_before_is_read_and_one_process_still_writes_the_same_files(tmp_path):
    state = trained(Toy())
    folder = checkpoint_folder(tmp_path / "old", 2)
    folder.mkdir(parents=True)
    for part, tensors in state.parts().items():
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()}, folder / f"{part}.safetensors"
        )
    (folder / "state.json").write_text(json.dumps({"step": 2, "elapsed": 1.5, "ema_updates": 2}))
    marker = {
        path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in folder.iterdir()
    }
    (folder / "complete.json").write_text(json.dumps(marker))

    fresh = TrainState.fresh(Toy(seed=9), config(9))
    Saver(tmp_path / "old").resume(fresh)
    assert_equal(flat(fresh.parts()), flat(state.parts()))
    assert (fresh.step, fresh.elapsed, fresh.ema.updates, fresh.extra) == (2, 1.5, 2, {})
    with Saver(tmp_path / "new") as behind:
        behind.save(state)
    for part in ("weights", "ema", "optimizer"):
        new = checkpoint_folder(tmp_path / "new", 2) / f"{part}.safetensors"
        assert new.read_bytes() == (folder / new.name).read_bytes()


def test_a_checkpoint_of_another_model_changes_nothing(tmp_path):
    with Saver(tmp_path) as behind:
        behind.save(trained(Toy()))
    state = TrainState.fresh(Toy(width=6), config(9))
    before = flat(state.parts())
    with pytest.raises(
        CheckpointError, match=r"\(weights\) is of another model.*net.0.weight \(7, 5\), not \(6, 5\)"
    ):
        Saver(tmp_path).resume(state)
    assert_equal(flat(state.parts()), before)


def test_parts_that_are_not_asked_for_are_neither_checked_nor_read(tmp_path):
    parts = {"weights": {"a": torch.ones(3)}, "optimizer": {"a/step": torch.ones(())}}
    folder = save_checkpoint(tmp_path, 1, parts, {"step": 1})
    (folder / "optimizer.safetensors").write_bytes(b"spoilt")
    assert load_checkpoint(folder, parts=("weights", "ema"))[0].keys() == {"weights"}
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors is damaged"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("steps", "keep_last", "keep_every", "stay"),
    [
        ([10, 20, 30, 40, 50], 2, None, {40, 50}),
        ([10, 20, 30, 40, 50], 1, 20, {20, 40, 50}),
        ([7, 12, 25, 31, 38, 44], 1, 10, {12, 25, 31, 44}),  # saved by the clock: the first after each multiple
        ([3, 6, 9], 3, 100, {3, 6, 9}),
        ([], 2, 5, set()),
    ],
)  # fmt: skip
def test_the_last_ones_stay_and_one_for_each_multiple(steps, keep_last, keep_every, stay):
    assert kept(steps, keep_last, keep_every) == stay


@given(st.sets(st.integers(0, 300), max_size=40), st.integers(1, 4), st.integers(1, 60))
def test_removing_after_each_save_keeps_what_removing_at_the_end_would(steps, keep_last, keep_every):
    there: set[int] = set()
    for number in sorted(steps):
        there = kept({*there, number}, keep_last, keep_every)
    assert there == kept(steps, keep_last, keep_every)


def test_milestones_are_kept_on_the_disk(tmp_path):
    for number in (2, 4, 6, 8, 10):
        save_checkpoint(tmp_path, number, {"weights": {"a": torch.ones(3)}}, {}, keep_last=1, keep_every=4)
    assert list(checkpoints(tmp_path)) == [4, 8, 10]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_plain_tensors_are_dealt_to_the_ranks_once_and_evenly(size):
    parts = {
        part: {f"{part}{n}": torch.zeros(n * n % 97 + 1) for n in range(20)} for part in ("weights", "ema")
    }
    worlds = [World(rank, size, rank, None, torch.device("cpu")) for rank in range(size)]
    hands = [dealt(parts, world) for world in worlds]
    assert sorted(key for hand in hands for key in hand) == sorted(
        (part, name) for part, tensors in parts.items() for name in tensors
    )
    loads = [sum(parts[part][name].nbytes for part, name in hand) for hand in hands]
    assert max(loads) - min(loads) <= 97 * 4  # one tensor's worth: the largest
    for world, hand in zip(worlds, hands, strict=True):
        copies = copied(parts, world)
        assert {(part, name) for part, tensors in copies.items() for name in tensors} == hand


def test_a_copy_is_not_the_tensor_itself():
    tensor = torch.arange(6.0).view(2, 3)
    copy = copied({"weights": {"a": tensor.T}}, World.alone(torch.device("cpu")))["weights"]["a"]
    tensor.zero_()
    assert copy.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert copy.is_contiguous()
