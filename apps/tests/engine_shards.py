"""Sharded tensors and training states saved by some ranks and read by others; a process of its own.

    python engine_shards.py FOLDER

FOLDER/tensors: made of the tensors of `tensors()`, sharded in every way, saved by two ranks at step 2 and, after a
read, by three at step 3. FOLDER/training: the toy under FSDP2, two steps on two ranks, then saved again by three.
Every rank compares what it read with what was saved.
"""

import errno
import shutil
import sys
from pathlib import Path

import pytest
import torch
import torch._dynamo  # torch's optimizers import it at their first step; once here, not in each rank
from cf_apps.engine import CheckpointError, RunError
from cf_apps.engine.ranks.world import World
from cf_apps.engine.saving import storage
from cf_apps.engine.saving.checkpoint import checkpoint_folder, checkpoints, open_checkpoint, save_checkpoint
from cf_apps.engine.saving.saver import Saver, copied
from cf_apps.engine.saving.state import TrainState
from cf_apps.engine.seeds import step_generator
from engine_ranks import on_ranks
from engine_toy import Toy, config
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

WAYS = {"rows": Shard(0), "few": Shard(0), "columns": Shard(1), "same": Replicate()}
NUMBERS = {"step": 2, "extra": {"skipped": 3}}


def tensors() -> dict[str, Tensor]:
    """Of odd sizes; `few` has fewer rows than there are ranks."""
    draw = step_generator("cpu", 5)
    return {
        "rows": torch.randn(7, 3, generator=draw),
        "few": torch.randn(2, 5, generator=draw).bfloat16(),
        "columns": torch.randn(3, 5, 2, generator=draw, dtype=torch.float64),
        "same": torch.randn(4, 4, generator=draw),
        "plain": torch.randn(5, generator=draw),
        "scalar": torch.tensor(2.5),
        "count": torch.tensor([3, 1]),
    }


def sharded(values: dict[str, Tensor], world: World) -> dict[str, Tensor]:
    mesh = init_device_mesh("cpu", (world.size,))
    return {
        name: distribute_tensor(tensor, mesh, [WAYS[name]]) if name in WAYS else tensor
        for name, tensor in values.items()
    }


def full(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def write_tensors(run: Path, world: World) -> None:
    parts = {"weights": sharded(tensors(), world), "optimizer": sharded({"rows": -tensors()["rows"]}, world)}
    save_checkpoint(run, 2, copied(parts, world), NUMBERS, world=world)


def read_and_write_tensors(run: Path, world: World) -> None:
    saved = open_checkpoint(checkpoint_folder(run, 2), world)
    assert saved.state == NUMBERS
    empty = {name: torch.zeros_like(tensor) for name, tensor in tensors().items()}
    into = sharded(empty, world)
    saved.read({"weights": into}, world)
    for name, tensor in tensors().items():
        assert torch.equal(full(into[name]), tensor), name
    save_checkpoint(run, 3, {"weights": into}, {"step": 3}, world=world)


def fresh(world: World, seed: int) -> tuple[Toy, TrainState]:
    task = Toy(seed=seed)
    task.tied.requires_grad_(False)  # AdamW takes sharded parameters or plain ones, not both
    task.no_decay = ()
    for module in (task.net, task.table):  # what is frozen stays plain: a checkpoint holds both
        fully_shard(module, mesh=init_device_mesh("cpu", (world.size,)))
    return task, TrainState.fresh(task, config(9))


def state_of(state: TrainState) -> dict[str, Tensor]:
    parts = state.parts()
    return {f"{part}/{name}": full(x).clone() for part, named in parts.items() for name, x in named.items()}


def train(run: Path, world: World) -> None:
    """Two steps, saved behind the third, which must not show in what is saved."""
    task, state = fresh(world, seed=3)
    with Saver(run, world=world) as saver:
        assert saver.resume(state) is None
        for step in range(3):
            if step == 2:
                state.step, state.elapsed, state.extra = 2, 0.1 + 0.2, {"skipped": 1}
                expected = state_of(state)
                saver.save(state)
            task.losses(task.batch(8 * step, 8), step_generator("cpu", step), 0.0).total.backward()
            state.optimizer.step()
            state.optimizer.zero_grad()
            state.ema.update()
    assert any(not torch.equal(expected[name], tensor) for name, tensor in state_of(state).items())
    if world.main:
        torch.save(expected, run.parent / "expected.pt")


def resume_and_save(run: Path, world: World) -> None:
    _, state = fresh(world, seed=8)
    expected = torch.load(run.parent / "expected.pt")
    with Saver(run, world=world) as saver:
        assert saver.resume(state) == checkpoint_folder(run, 2)
        found = state_of(state)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), name
        assert (state.step, state.elapsed, state.ema.updates) == (2, 0.1 + 0.2, 2)
        assert state.extra == {"skipped": 1}
        state.step = 3
        saver.save(state)


def fail_on_one_rank(run: Path, world: World) -> None:
    """The disk of rank 1 is full: every rank says so, and what was there stays."""

    def full_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    whole = storage.save_file
    if world.rank == 1:
        storage.save_file = full_disk
    with pytest.raises(RunError, match="No space left on device; step 3 is kept, make room"):
        save_checkpoint(run, 4, {"weights": sharded(tensors(), world)}, {}, world=world)
    storage.save_file = whole
    world.wait()
    assert list(checkpoints(run)) == [2, 3]
    assert not list(run.glob("checkpoints/.*"))


def find_damage_everywhere(run: Path, world: World) -> None:
    """Each rank checks some of the files; all of them name the damaged one."""
    folder = checkpoint_folder(run, 3)
    if world.main:
        path = folder / "weights-00002-of-00003.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    world.wait()
    with pytest.raises(CheckpointError, match=r"weights-00002-of-00003\.safetensors is damaged"):
        open_checkpoint(folder, world)


def main(folder: Path) -> None:
    run, training = folder / "tensors", folder / "training"
    steps = [
        (2, lambda world: write_tensors(run, world)),
        (3, lambda world: read_and_write_tensors(run, world)),
        (2, lambda world: train(training, world)),
        (3, lambda world: resume_and_save(training, world)),
        (3, lambda world: fail_on_one_rank(run, world)),
    ]
    for number, (size, work) in enumerate(steps):
        on_ranks(size, work, folder / f"meeting-{number}")
    copy = folder / "damaged"
    shutil.copytree(checkpoint_folder(run, 3), checkpoint_folder(copy, 3))
    on_ranks(2, lambda world: find_damage_everywhere(copy, world), folder / "meeting-damage")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
