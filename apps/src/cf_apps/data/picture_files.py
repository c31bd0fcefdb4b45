"""Pictures in files: which there are and how large, from their headers; and a set that decodes them when asked."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from cf_apps.data.captioned import DataError
from cf_apps.data.pair_layouts import IMAGE_SUFFIXES
from cf_apps.data.square_image import UnreadableImage, shorter_side, square_rgb
from cf_apps.engine.files import write_text

THREADS = min(8, os.cpu_count() or 1)  # Pillow decodes outside Python's lock
KEPT_BYTES = 2**30  # of decoded squares that a set keeps, so that a small folder is decoded once
CACHED_FROM = 1_000  # files; reading fewer headers anew costs less than a second


@dataclass(frozen=True)
class Scanned:
    """One file. name: its path below the folder, with /. reason: why it cannot be used; then shorter_side is 0."""

    name: str
    modified: int
    size: int
    shorter_side: int = 0
    reason: str | None = None


def scan(folder: Path, cache: Path | None = None) -> list[Scanned]:
    """All picture files below `folder` by their suffixes, sorted by name, hidden ones left out.

    cache: where the list is kept if it is long; only files that are new or changed since are opened then. None
    takes a place in the user's cache folder.
    """
    files = sorted(_files(folder))
    cache = cache or _cache_file(folder)
    known = {it.name: it for it in _read_cache(cache)} if len(files) >= CACHED_FROM else {}
    fresh = [it for it in files if not _same(known.get(it[0]), it)]
    with ThreadPoolExecutor(THREADS) as threads:
        known |= {it.name: it for it in threads.map(lambda file: _measured(folder, *file), fresh)}
    found = [known[name] for name, _, _ in files]
    if fresh and len(files) >= CACHED_FROM:
        _write_cache(cache, found)
    return found


def _files(folder: Path, below: str = "") -> Iterator[tuple[str, int, int]]:
    """(name, time of change in ns, bytes) of each file, through the folder's own records: millions are many."""
    with os.scandir(folder / below) as entries:
        for entry in entries:
            name = f"{below}{entry.name}"
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _files(folder, f"{name}/")
            elif Path(name).suffix.lower() in IMAGE_SUFFIXES and entry.is_file():
                status = entry.stat()
                yield name, status.st_mtime_ns, status.st_size


def _same(known: Scanned | None, file: tuple[str, int, int]) -> bool:
    return known is not None and (known.name, known.modified, known.size) == file


def _measured(folder: Path, name: str, modified: int, size: int) -> Scanned:
    try:
        return Scanned(name, modified, size, shorter_side(folder / name))
    except UnreadableImage as error:
        return Scanned(name, modified, size, reason=str(error))
    except OSError as error:
        return Scanned(name, modified, size, reason=error.strerror or str(error))


def _cache_file(folder: Path) -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (
        home / "crossflow" / f"sizes-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]}.json"
    )


def _read_cache(cache: Path) -> list[Scanned]:
    try:
        return [Scanned(*row) for row in json.loads(cache.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):  # none yet, or not ours: made anew
        return []


def _write_cache(cache: Path, found: Sequence[Scanned]) -> None:
    rows = [[it.name, it.modified, it.size, it.shorter_side, it.reason] for it in found]
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_text(cache, json.dumps(rows))
    except OSError:  # a full disk or a read-only home costs the next start some time, nothing else
        return


@dataclass(frozen=True)
class PictureFiles:
    """Picture files as a set of squares, each decoded when it is asked for.

    files: paths below `folder`. A file that turns out to be damaged is left out: the next one takes its place, and
    `unreadable` says which and why.
    """

    folder: Path
    files: tuple[str, ...]
    image_size: int
    name: str
    unreadable: dict[str, str] = field(default_factory=dict, compare=False)
    _kept: dict[int, UInt8[np.ndarray, "3 s s"]] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.files)

    def batch(self, indices: Int64[Tensor, "b"]) -> UInt8[Tensor, "b 3 s s"]:
        """The centre squares of the pictures at `indices`, at image_size. Raises DataError if none can be read."""
        with ThreadPoolExecutor(THREADS) as threads:
            squares = list(threads.map(self._square, indices.tolist()))
        return torch.from_numpy(np.stack(squares))

    def subset(self, indices: Int64[Tensor, "m"], name: str) -> "PictureFiles":
        """The same folder cut down to the files at `indices`, in that order."""
        return PictureFiles(
            self.folder, tuple(self.files[i] for i in indices.tolist()), self.image_size, name
        )

    def _square(self, index: int) -> UInt8[np.ndarray, "3 s s"]:
        if not 0 <= index < len(self.files):
            raise IndexError(f"picture {index} is outside {self.name} of {len(self.files)} pictures")
        for tried in range(len(self.files)):
            place = (index + tried) % len(self.files)
            square = self._kept.get(place)
            square = self._decoded(place) if square is None else square
            if square is not None:
                return square
        raise DataError(
            f"{self.name}: no picture can be read; the first: {next(iter(self.unreadable.items()))}"
        )

    def _decoded(self, index: int) -> UInt8[np.ndarray, "3 s s"] | None:
        name = self.files[index]
        if name in self.unreadable:
            return None
        try:
            square = square_rgb((self.folder / name).read_bytes(), self.image_size)
        except (OSError, UnreadableImage) as error:
            self.unreadable[name] = str(error)
            return None
        if (len(self._kept) + 1) * square.nbytes <= KEPT_BYTES:
            self._kept[index] = square
        return square
