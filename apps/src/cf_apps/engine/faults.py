"""What may go wrong within a step, turned into one line that says what to do."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from cf_apps.engine.config import FitConfig
from cf_apps.engine.errors import RunError

CPU_OUT_OF_MEMORY = ("not enough memory", "can't allocate memory")


@contextmanager
def explained_memory(config: FitConfig) -> Iterator[None]:
    """Turn 'out of memory' within the block into a RunError that names the batch size and the remedy."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and not any(text in str(error) for text in CPU_OUT_OF_MEMORY):
            raise
        raise RunError(
            f"out of memory at {config.batch_size // config.accumulate} samples a pass "
            f"(batch_size={config.batch_size}, accumulate={config.accumulate}); "
            f"try accumulate={2 * config.accumulate}, which trains the same, or a smaller batch_size"
        ) from error


class StopRequest:
    """True once SIGTERM or Ctrl-C has come: the loop saves and stops. A second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.requested = False

    def __bool__(self) -> bool:
        return self.requested

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Within the block, signals ask politely; afterwards they do what they did before."""
    stop = StopRequest()
    if (
        threading.current_thread() is not threading.main_thread()
    ):  # Python hands signals to the main thread only
        yield stop
        return
    before = {number: signal.signal(number, stop._ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
