"""Saving while training goes on: the step waits for a copy of the state, the disk is written to behind it."""

import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import torch.distributed as dist
from torch import Tensor

from cf_apps.engine.ranks.shards import is_sharded
from cf_apps.engine.ranks.world import ALONE, World
from cf_apps.engine.saving.checkpoint import checkpoints, open_checkpoint, save_checkpoint
from cf_apps.engine.saving.layout import Parts
from cf_apps.engine.saving.state import TrainState

PATIENCE_AFTER_AN_ERROR = 20.0  # seconds that a failing rank gives a save which needs the other ranks


class Saver:
    """Loads and saves the checkpoints of a run; a context, which ends when the last save is on the disk.

    One save runs at a time. What goes wrong with it (RunError) is raised by the next one, or at the end of the
    context. Every rank makes a Saver and calls its methods at the same steps.
    """

    def __init__(
        self, run: Path, keep_last: int = 2, keep_every: int | None = None, world: World = ALONE
    ) -> None:
        self._run, self._keep_last, self._keep_every, self._world = run, keep_last, keep_every, world
        self._running: Future[None] | None = None
        self._step: int | None = None  # of the last save
        # of its own, as its collectives come whenever the disk is done; those of the steps must not meet them
        group = dist.new_group(backend="gloo") if world.group is not None else None
        self._behind = replace(world, group=group)

    def resume(self, state: TrainState) -> Path | None:
        """Load the last complete checkpoint into `state`; its folder, None where there is none. Collective.

        Raises CheckpointError when it is damaged or of another model.
        """
        last = max(self._world.from_main(list(checkpoints(self._run).items())), default=None)
        if last is None:
            return None
        state.restore(open_checkpoint(last[1], self._world), self._world)
        return last[1]

    def save(self, state: TrainState) -> None:
        """Wait for the save before, copy `state` to the CPU and return; the rest happens behind. Collective.

        Nothing is left to do for the step of the save before. Raises RunError when that save failed.
        """
        self.wait()
        if state.step == self._step:
            return
        self._step = state.step
        parts, numbers, step = copied(state.parts(), self._world), deepcopy(state.numbers()), state.step
        running: Future[None] = Future()

        def work() -> None:
            try:
                save_checkpoint(
                    self._run, step, parts, numbers, self._keep_last, self._keep_every, self._behind
                )
                running.set_result(None)
            except BaseException as error:
                running.set_exception(error)

        # a daemon: a process that fails must be able to end although another rank never answers
        threading.Thread(target=work, name="checkpoint", daemon=True).start()
        self._running = running

    def wait(self) -> None:
        """Until the running save, if any, is on the disk. Raises RunError when it failed, once."""
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def __enter__(self) -> "Saver":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.wait()
        elif self._running is not None:  # the error of the block is the one to report
            with suppress(BaseException):
                self._running.result(None if self._world.size == 1 else PATIENCE_AFTER_AN_ERROR)


def copied(parts: Parts, world: World) -> dict[str, dict[str, Tensor]]:
    """What this rank writes of `parts`, copied to the CPU: its shards, and its share of the plain tensors."""
    mine = dealt(parts, world)
    return {
        part: {
            name: tensor.detach().to("cpu", copy=True).contiguous()
            for name, tensor in tensors.items()
            if (part, name) in mine
        }
        for part, tensors in parts.items()
    }


def dealt(parts: Parts, world: World) -> set[tuple[str, str]]:
    """(part, name) of the tensors that this rank writes: all its shards, and plain ones so that all write alike."""
    sizes: Mapping[tuple[str, str], int] = {
        (part, name): tensor.nbytes
        for part, tensors in parts.items()
        for name, tensor in tensors.items()
        if not is_sharded(tensor)
    }
    whole = {(part, name) for part, tensors in parts.items() for name in tensors}
    mine, loads = whole - set(sizes), [0] * world.size
    for key in sorted(
        sizes, key=lambda key: (-sizes[key], key)
    ):  # large ones first, to the rank with least so far
        rank = loads.index(min(loads))
        loads[rank] += sizes[key]
        if rank == world.rank:
            mine.add(key)
    return mine
