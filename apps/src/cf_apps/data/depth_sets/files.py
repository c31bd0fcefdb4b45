"""Depth pairs that stay on the disk and are read when they are wanted."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from cf_apps.data.captioned import DataError
from cf_apps.data.depth_pairs import DepthBatch, DepthPair
from cf_apps.data.pairs import SkippedSamples

READERS = 8  # files decoded at once; Pillow and zlib let other threads run meanwhile


@dataclass(frozen=True)
class DepthRecord:
    """Where one pair lies. group: pairs of one group (a drive, a scene) are alike and belong in one split."""

    image: Path
    depth: Path
    mask: Path | None = None
    group: str = ""


Decode = Callable[[DepthRecord], DepthPair]


@dataclass(frozen=True)
class DepthFiles:
    """A set of files. decode: reads one pair at its own size. size: (h, w) that batches are stretched to.

    skipped: the lines of the split list that its protocol leaves out.
    """

    name: str
    records: tuple[DepthRecord, ...]
    decode: Decode
    size: tuple[int, int]
    skipped: SkippedSamples = field(default_factory=SkippedSamples)

    def __len__(self) -> int:
        return len(self.records)

    def batch(self, indices: Int64[Tensor, "b"], generator: torch.Generator | None = None) -> DepthBatch:
        """Raises DataError naming a file that cannot be read, or whose depth map has no reading at all."""
        with ThreadPoolExecutor(READERS) as readers:
            return DepthBatch.of(list(readers.map(self._wanted, indices.tolist())))

    def pair(self, index: int) -> DepthPair:
        """One pair at its own size. A depth map without a reading is no error here: scores skip and count it."""
        return self.decode(self.records[index])

    def subset(self, indices: Int64[Tensor, "m"], name: str) -> "DepthFiles":
        """The same set cut down to `indices`, in that order."""
        return replace(self, records=tuple(self.records[i] for i in indices.tolist()), name=name)

    def _wanted(self, index: int) -> DepthPair:
        pair = self.pair(index)
        if not pair.valid.any():
            raise DataError(
                f"{self.records[index].depth} has no pixel with a reading; take it out of the list"
            )
        return pair.resized(*self.size)


def paired(
    record: DepthRecord,
    image: UInt8[Tensor, "3 h w"],
    depth: Float[Tensor, "H W"],
    valid: Bool[Tensor, "H W"],
) -> DepthPair:
    """The pair of what was read; DataError where picture and depth map do not lie pixel over pixel."""
    if image.shape[1:] != depth.shape:
        (h, w), (depth_h, depth_w) = image.shape[1:], depth.shape
        raise DataError(
            f"{record.image} is {h} x {w}, its depth map {record.depth} {depth_h} x {depth_w}; "
            "they must lie pixel over pixel, so export one of them again"
        )
    return DepthPair(image, depth, valid)


def complete(records: Sequence[DepthRecord], origin: str) -> tuple[DepthRecord, ...]:
    """The records, once it is certain that every file is there. Raises DataError naming the first that is not."""
    named = [
        path for record in records for path in (record.image, record.depth, record.mask) if path is not None
    ]
    missing = [path for path in named if not path.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(named)} files that {origin} names are missing, the first is {missing[0]}; "
            "copy them there or take their lines out"
        )
    return tuple(records)
