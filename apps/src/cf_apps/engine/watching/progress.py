"""A live line on stderr while something runs: how far, how fast, how long still, and the losses."""

import sys
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import IO, Protocol, cast, runtime_checkable


@runtime_checkable
class Stream(Protocol):
    """Where text goes: stderr, a file."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> object: ...

    def isatty(self) -> bool: ...


@runtime_checkable
class Progress(AbstractContextManager["Progress"], Protocol):
    """Shows how a run goes; a context, so that the line is left tidy however the run ends."""

    def show(self, done: float, text: str) -> None:
        """done: share in [0, 1]; text: what to say beside it."""
        ...


def progress_line(label: str, stream: Stream | None = None) -> "Progress":
    """A moving bar when `stream` (stderr) is a terminal, and plain lines ten seconds apart when it is not."""
    where = sys.stderr if stream is None else stream
    return LiveLine(label, where) if where.isatty() else PlainLines(label, where)


class Silence:
    """Shows nothing."""

    def show(self, done: float, text: str) -> None:
        del done, text

    def __enter__(self) -> "Silence":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class PlainLines(Silence):
    """A line at the start, one every `seconds`, one at the end: for files and pipes."""

    def __init__(self, label: str, stream: Stream, seconds: float = 10.0) -> None:
        self._label, self._stream, self._seconds = label, stream, seconds
        self._last: float | None = None

    def show(self, done: float, text: str) -> None:
        now = time.monotonic()
        if self._last is None or now - self._last >= self._seconds or done >= 1:
            self._last = now
            print(f"{self._label}: {done:4.0%}  {text}", file=self._stream, flush=True)


class LiveLine(Silence):
    """A bar that moves, by rich; the time still to go follows from the share done."""

    def __init__(self, label: str, stream: Stream) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[text]}"),
        )
        self._bar = Bar(*columns, console=Console(file=cast("IO[str]", stream)), transient=False)
        self._task = self._bar.add_task(label, total=1.0, text="")

    def show(self, done: float, text: str) -> None:
        self._bar.update(self._task, completed=done, text=text)

    def __enter__(self) -> "LiveLine":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
