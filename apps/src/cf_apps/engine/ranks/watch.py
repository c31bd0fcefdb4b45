"""When one rank fails, all end soon, and the last line of each says why.

A rank that waits for the others in a collective cannot notice by itself that one of them is gone: gloo notices most
deaths, nccl few. So every rank has a thread that looks into the ranks' common store every few seconds. A rank that
fails writes its reason there. One that was killed cannot, so each also leaves signs of life, and watches those of its
neighbour.
"""

import os
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

from torch.distributed.distributed_c10d import PrefixStore

from cf_apps.engine.errors import RunError, UserError

FAILED = "failed"
LOST = (
    "connection closed by peer",
    "connection reset by peer",
    "broken pipe",
    "socket error",
    "connection refused",
)


@dataclass(frozen=True)
class Patience:
    """Seconds. beat: between two looks. silence: without a sign of life, after which a rank counts as dead. grace: that
    a rank has to end by itself once another has failed."""

    beat: float = 2.0
    silence: float = 40.0
    grace: float = 10.0


class Watch:
    """Of one rank over all of them; a thread from `start` to `stop`.

    store: of all ranks; the thread has its own connection, since a store lets one caller wait at a time.
    """

    def __init__(self, store: Any, rank: int, size: int, patience: Patience | None = None) -> None:
        self._store = PrefixStore("watch", store.clone())
        self._rank, self._size, self._neighbour = rank, size, (rank + 1) % size
        self._patience = patience if patience is not None else Patience()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Every rank is here and well: from now on nobody looks."""
        self._ended.set()
        self._thread.join()

    def meet(self) -> None:
        """Wait at the end of this rank's work until all have come to theirs, however much later: shares of shards to
        extract may differ by hours, and a collective would give up on the others. RunError when one fails meanwhile.
        """
        self._store.set(f"at the end/{self._rank}", "1")
        everyone, pause = [f"at the end/{rank}" for rank in range(self._size)], 0.01
        while not self._store.check(everyone):
            if self._store.check([FAILED]):
                raise RunError(self._store.get(FAILED).decode())
            time.sleep(pause)
            pause = min(2 * pause, self._patience.beat)

    def failed(self, error: BaseException) -> BaseException:
        """Tell the others of an error of this rank's; returns what to raise: where another failed first, its reason."""
        own = f"rank {self._rank}: {reason(error)}"
        try:
            first = self._store.compare_set(FAILED, "", own).decode()
        except (RuntimeError, OSError):  # the store has gone with the process that held it
            first = own
        if self._rank == 0:
            time.sleep(2 * self._patience.beat)  # where it holds the store, the others must have read it
        if isinstance(error, UserError | KeyboardInterrupt | SystemExit):
            return error
        return error if first == own and not is_loss(error) else RunError(first)

    def _look(self) -> None:
        """The thread: until `stop`, or until a rank has failed and this one has had its grace."""
        seen, since, beats = "", time.monotonic(), 0
        while not self._ended.wait(self._patience.beat):
            beats += 1
            try:
                self._store.set(f"alive/{self._rank}", str(beats))
                cause = self._store.get(FAILED).decode() if self._store.check([FAILED]) else None
                key = f"alive/{self._neighbour}"
                sign = self._store.get(key).decode() if self._store.check([key]) else ""
                if sign != seen:
                    seen, since = sign, time.monotonic()
                silence = time.monotonic() - since
                if cause is None and silence > self._patience.silence:
                    cause = (
                        f"rank {self._neighbour} has given no sign of life for {silence:.0f} s: it was killed, or its "
                        "machine is gone; resume goes on from the last checkpoint"
                    )
                    self._store.compare_set(FAILED, "", cause)
            except (RuntimeError, OSError) as error:
                cause = f"the ranks have lost the process that held them together ({reason(error)})"
            if cause is not None:
                self._leave(cause)
                return

    def _leave(self, cause: str) -> None:
        if self._ended.wait(self._patience.grace):
            return
        print(f"error: {cause}", file=sys.stderr, flush=True)
        os._exit(1)  # the main thread waits within a collective, where no exception reaches it


def reason(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text
    if is_loss(error):
        return "lost another rank: it was killed, or its machine is gone; resume goes on from the last checkpoint"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def is_loss(error: BaseException) -> bool:
    """Whether it comes of a connection to another rank that broke."""
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in LOST)
