"""What commands read and tell: pictures in the order of a progress bar, a table, the same numbers as JSON."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from cf_eval.files import replaced
from cf_eval.result import Result

Item = TypeVar("Item")
# a path that is given by its place, not by a name
Place = Annotated[Path, tyro.conf.Positional]


def one_of(names: Sequence[str]) -> Any:
    """The help of an option that is a name."""
    return tyro.conf.arg(metavar="NAME", help=f"One of: {', '.join(names)}.")


@dataclass(frozen=True)
class Output:
    """Where the result goes besides the terminal."""

    json: Path | None = None
    """File for the result as one line of JSON: values, protocol, counts, hashes."""

    def check(self) -> None:
        """Before any work: raises OSError where the file could not be written."""
        require_writable(self.json)

    def show(self, result: Result) -> None:
        """Print the table, and write the file; never half of one."""
        print_result(result)
        if self.json is not None:
            write_whole(self.json, result.to_json() + "\n")


def require_writable(path: Path | None) -> None:
    """Raises OSError for a file in a folder that is not there or may not be written to."""
    if path is None:
        return
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is no folder; make it, or write {path.name} somewhere else")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path} cannot be written; choose another file")


def write_whole(path: Path, text: str) -> None:
    """Write a file so that no reader ever sees half of it."""
    with replaced(path) as partial:
        partial.write_text(text, encoding="utf-8")


def print_result(result: Result) -> None:
    """A table of the values, with their intervals where there are some, and the protocol below it."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=result.metric.replace("_", " "), title_justify="left")
    table.add_column("")
    table.add_column("value", justify="right")
    intervals = result.details.get("intervals")
    if isinstance(intervals, dict):
        table.add_column(f"interval, level {result.details['confidence']}", justify="right")
    for name, value in result.values.items():
        bounds = intervals.get(name) if isinstance(intervals, dict) else None
        shown = [f"{bound:.6g}" for bound in bounds] if isinstance(bounds, list) else []
        table.add_row(name, f"{value:.6g}", *([" to ".join(shown)] if shown else []))
    console = Console()
    console.print(table)
    # a protocol is full of brackets and numbers that rich would dress up
    console.print(f"{result.protocol}; n = {result.count}", markup=False, highlight=False)


def note(sentence: str) -> None:
    """Something the user should know, beside the result."""
    print(f"note: {sentence}", file=sys.stderr)


def tracked(items: Sequence[Item], what: str, size: int = 1) -> Iterator[Sequence[Item]]:
    """Parts of `size` items, with a progress bar on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=len(items))
        for start in range(0, len(items), size):
            part = items[start : start + size]
            yield part
            progress.advance(task, len(part))


def by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """The files of a folder and the folders in it by their path without ending, sorted.

    Raises ValueError where there are none, or two of one name.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in suffixes:
            continue
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise ValueError(f"{found[stem]} and {path} have the same name; leave one in the folder")
        found[stem] = path
    if not found:
        raise ValueError(f"no files in {folder} end in {', '.join(suffixes)}")
    return found


def require_same_names(given: dict[str, Any], wanted: dict[str, Any], what: str, of: str) -> None:
    """Raises ValueError naming what one side has alone."""
    for one, other, lacking in ((given, wanted, of), (wanted, given, what)):
        alone = [name for name in one if name not in other]
        if alone:
            named = ", ".join(alone[:5]) + (", ..." if len(alone) > 5 else "")
            raise ValueError(f"{len(alone)} names have no {lacking}: {named}; give both sides the same names")
