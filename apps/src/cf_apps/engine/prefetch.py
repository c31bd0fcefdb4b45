"""The next batches, made in the background while a step computes."""

import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from types import TracebackType
from typing import Any, Generic, TypeVar

import torch

from cf_apps.engine.checks import require_count

B = TypeVar("B")


class Prefetch(Generic[B]):
    """Makes the batches of `plan` ahead of time and hands them out in the order of the plan; a context.

    make_batch: `task.batch` for instance. Its result must depend on its arguments alone, so it makes no difference
        when, or on which thread, it is called.
    plan: the arguments for each batch, as (first, size). It may be endless: no more of it is read than is made.
    ahead: how many batches are made beyond the one that is waited for. 0 makes each when it is asked for, on
        the caller's own thread. Memory holds `ahead` batches and the one in use.
    threads: how many batches are made at the same time. More than one asks that make_batch may run twice at once.

    What make_batch raises is raised by the `next` that wanted that batch, not before.
    """

    def __init__(
        self,
        make_batch: Callable[..., B],
        plan: Iterable[tuple[Any, ...]],
        ahead: int = 2,
        threads: int = 1,
    ) -> None:
        require_count("prefetch", ahead, 0)
        require_count("prefetch threads", threads, 1)
        self._make, self._plan, self._ahead = make_batch, iter(plan), ahead
        self._coming: deque[Future[B]] = deque()
        self._pool = ThreadPoolExecutor(threads, "prefetch", _use_device, (_device(),)) if ahead else None
        self.waited = 0.0
        """Seconds that `next` has kept its caller waiting, all calls together: the data stall."""

    def next(self) -> B:
        """The next batch of the plan. Raises StopIteration after the last, and what make_batch raised for this one."""
        start = time.perf_counter()
        try:
            if self._pool is None:
                return self._make(*next(self._plan))
            for place in islice(self._plan, self._ahead + 1 - len(self._coming)):
                self._coming.append(self._pool.submit(self._make, *place))
            if not self._coming:
                raise StopIteration
            return self._coming.popleft().result()
        finally:
            self.waited += time.perf_counter() - start

    def __enter__(self) -> "Prefetch[B]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def _device() -> int | None:
    """The GPU that this thread works on; None where no GPU is in use."""
    return torch.cuda.current_device() if torch.cuda.is_initialized() else None


def _use_device(device: int | None) -> None:
    """Work on the GPU that the training thread works on: a new thread would take the first one."""
    if device is not None:
        torch.cuda.set_device(device)
