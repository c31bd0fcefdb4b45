"""The processes of one training: one, or as many as torchrun started. The loop sees a `World` and never counts."""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from cf_apps.engine.device import choose_device
from cf_apps.engine.errors import ConfigError, RunError, UserError
from cf_apps.engine.ranks.watch import Watch

Group = Any  # torch.distributed.ProcessGroup exists only in builds with distributed support
T = TypeVar("T")

ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK")  # what torchrun sets for each of its processes
MEETING = timedelta(minutes=10)  # from the first rank's start to the last one's
PATIENCE = timedelta(
    minutes=30
)  # a collective may wait that long for a rank that is alive: it may be reading data


@dataclass(frozen=True)
class World:
    """All processes that train together, seen from one of them.

    rank: of this process, 0 ... size - 1. local_rank: among those of this machine. group: what collectives take as
    `group=`; None where the process is alone. device: this process's own.

    Methods that say `collective` must be called by every rank, in the same order.
    """

    rank: int
    size: int
    local_rank: int
    group: Group | None
    device: torch.device

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ValueError(f"rank must lie in [0, {self.size}), got {self.rank}")

    @classmethod
    def alone(cls, device: torch.device) -> "World":
        """One process."""
        return cls(0, 1, 0, None, device)

    @property
    def main(self) -> bool:
        """Whether this is the rank that writes and prints."""
        return self.rank == 0

    def share(self, rows: int) -> range:
        """Which of `rows` rows are this rank's: neighbours, in rank order, as even as can be (7 on 3: 3, 2, 2)."""
        return self.shares(rows)[self.rank]

    def shares(self, rows: int) -> list[range]:
        """The rows of every rank."""
        least, more = divmod(rows, self.size)
        starts = [rank * least + min(rank, more) for rank in range(self.size + 1)]
        return [range(start, stop) for start, stop in itertools.pairwise(starts)]

    def wait(self) -> None:
        """Until every rank is here. Collective."""
        if self.group is not None:
            self.any(False)

    def any(self, flag: bool) -> bool:
        """Whether `flag` holds on any rank; the same answer everywhere. Collective, and does not wait for the GPU."""
        return self.largest([float(flag)])[0] > 0

    def largest(self, numbers: list[float]) -> list[float]:
        """The largest of every rank's number, place by place. Collective, and does not wait for the GPU."""
        if self.group is None:
            return numbers
        everyone = torch.tensor(numbers, dtype=torch.float64)  # on the CPU: gloo's, whatever the device
        dist.all_reduce(everyone, dist.ReduceOp.MAX, group=self.group)
        return everyone.tolist()

    def total(self, x: Tensor) -> Tensor:
        """The sum of the ranks' tensors, without gradient. Collective."""
        x = x.detach()
        if self.group is None:
            return x
        x = x.clone()
        dist.all_reduce(x, group=self.group)
        return x

    def on_main(self, act: Callable[[], T]) -> T:
        """What rank 0 gets from act(), which it alone calls; a UserError of its is raised on every rank. Collective."""
        if self.group is None:
            return act()
        found: tuple[T | None, UserError | None] = (None, None)
        if self.main:
            try:
                found = (act(), None)
            except UserError as error:
                found = (None, error)
        value, error = self.from_main(found)
        if error is not None:
            raise error
        return cast(T, value)

    def everyone(self, value: T) -> list[T]:
        """Every rank's value, in rank order; anything that pickles. Collective."""
        if self.group is None:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def from_main(self, value: T) -> T:
        """Rank 0's value, on every rank; anything that pickles. Collective."""
        if self.group is None:
            return value
        values: list[Any] = [value]
        dist.broadcast_object_list(values, src=0, group=self.group)
        return values[0]


ALONE = World.alone(torch.device("cpu"))  # for what has no device to ask about


@contextmanager
def joined(device: str = "auto") -> Iterator[World]:
    """The world that torchrun's environment tells of, one process where there is none; left when the block ends.

    A rank that fails takes all others with it within a minute, and each ends with the reason in its last line.

    device: as `choose_device` takes it; with several processes on a machine each takes the GPU of its local rank.
    Raises ConfigError for a device that processes cannot share, or an environment that is not whole; RunError when the
    ranks do not find together.
    """
    found = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    if not found:
        yield World.alone(choose_device(device))
        return
    if missing := [name for name in ENVIRONMENT if name not in found]:
        raise ConfigError(
            f"{', '.join(found)} set and {', '.join(missing)} not; start with torchrun, or unset what is set"
        )
    rank, size, local_rank = (int(found[name]) for name in ENVIRONMENT)
    own = _own_device(device, local_rank)
    watch = _met(rank, size, own)
    watch.start()
    try:
        world = World(rank, size, local_rank, dist.group.WORLD, own)
        yield world
        watch.meet()
        world.wait()  # else a rank that has ended would look like one that died
    except BaseException as error:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        told = watch.failed(error)
        get_error_handler().record_exception(told)  # for torchrun's own summary
        if told is error:
            raise
        raise told from error
    watch.stop()
    dist.destroy_process_group()  # not after a failure: it may wait for a rank that is gone


def _met(rank: int, size: int, device: torch.device) -> Watch:
    """Bring the ranks together; RunError when that fails."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    try:
        store, _, _ = next(iter(rendezvous("env://", rank, size, timeout=MEETING)))
        watch = Watch(store, rank, size)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=PATIENCE,
            device_id=device if on_gpu else None,
        )
    except (RuntimeError, ValueError) as error:  # torch's DistError are RuntimeErrors
        raise RunError(
            f"the {size} ranks did not find together: {error}; see MASTER_ADDR and MASTER_PORT"
        ) from error
    return watch


def _own_device(name: str, local_rank: int) -> torch.device:
    """This process's device: `cuda` and `auto` become the GPU of the local rank."""
    device = choose_device(name)
    if device.type != "cuda":
        return device
    if device.index is not None:
        raise ConfigError(f"device {name!r} asked for by every process; use cuda, and each takes its own GPU")
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"local rank {local_rank} has no GPU of its own, there are {torch.cuda.device_count()}; "
            "start as many processes a machine as it has GPUs"
        )
    return torch.device("cuda", local_rank)
