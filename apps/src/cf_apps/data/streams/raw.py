"""A raw pair, and a source of them: some units, each a stream that can be entered anywhere."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from cf_apps.data.captioned import DataError

CAPTION_COLUMNS = ("text", "caption", "prompt", "captions")


@dataclass(frozen=True)
class RawPair:
    """One image, encoded (bytes, or the file that holds them), and its phrasings, possibly none."""

    name: str
    image: bytes | Path
    captions: tuple[str, ...]

    def read(self) -> bytes:
        """The encoded image; OSError when its file cannot be read."""
        return self.image.read_bytes() if isinstance(self.image, Path) else self.image


@dataclass(frozen=True)
class PairUnit:
    """One stretch of a source, a file of it as a rule; always the same pairs in the same order.

    read: the pairs from number `start` on; what lies before is passed over, cheaply where the kind of file allows.
    """

    name: str
    read: Callable[[int], Iterator[RawPair]]


@dataclass(frozen=True)
class PairSource:
    """Units that several processes can share. contents: changes when the source does, as far as a look can tell."""

    name: str
    units: Sequence[PairUnit]
    contents: str

    def __iter__(self) -> Iterator[RawPair]:
        for unit in self.units:
            yield from unit.read(0)


def listed(name: str, pairs: Callable[[], Iterator[RawPair]]) -> PairUnit:
    """A unit of pairs that cost nothing to pass over: their pictures are not read before they are asked for."""
    return PairUnit(name, lambda start: islice(pairs(), start, None))


def column(row: Mapping[str, Any], known: Sequence[str], table: Path | str) -> str:
    """The first of the known columns that a row has. Raises DataError that lists both."""
    for name in known:
        if name in row:
            return name
    raise DataError(f"{table} has no column {' / '.join(known)}; its columns: {', '.join(row)}")


def phrasings(value: Any) -> tuple[str, ...]:
    """A cell or a list of cells as the phrasings that say something."""
    texts = value if isinstance(value, list | tuple) else [value]
    return tuple(str(text).strip() for text in texts if text is not None and str(text).strip())


def encoded(image: Any, folder: Path | None, name: str) -> bytes | Path:
    """A cell as `datasets` has it: bytes, a path below `folder`, or the struct of both that `Image` is."""
    match image:
        case bytes():
            return image
        case {"bytes": bytes(data)}:
            return data
        case str(path) | {"path": str(path)} if folder is not None:
            return folder / path
        case None | {"bytes": None}:
            return b""
    raise DataError(f"{name}: the image column holds {type(image).__name__}; expected encoded image bytes")
