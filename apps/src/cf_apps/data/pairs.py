"""The user's own captioned images: read once, made square, kept in memory, split for good."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from cf_apps.data.captioned import DataError, ImageTextArrays, split_by_hash
from cf_apps.data.pair_layouts import open_pairs
from cf_apps.data.square_image import UnreadableImage, square_rgb
from cf_apps.data.streams.raw import PairSource, RawPair

VAL_FRACTION = 0.05


class UnusablePair(ValueError):
    """A pair that cannot be learned from; the message says why, without its name."""


@dataclass(frozen=True)
class UsablePair:
    """A decoded pair. key: a hash of the bytes of its picture, which decides on its side of the split."""

    image: UInt8[np.ndarray, "3 s s"]
    key: str


def decoded(pair: RawPair, image_size: int) -> UsablePair:
    """The centre square of a pair's picture, at image_size. Raises UnusablePair."""
    if not pair.captions:
        raise UnusablePair("no caption")
    try:
        data = pair.read()
        return UsablePair(square_rgb(data, image_size), hashlib.sha256(data).hexdigest())
    except FileNotFoundError:
        raise UnusablePair("no such file") from None
    except (OSError, UnreadableImage) as error:
        raise UnusablePair(str(error)) from error


@dataclass(frozen=True)
class SkippedSamples:
    """The samples left out, each as (name, reason)."""

    samples: tuple[tuple[str, str], ...] = ()

    def said(self) -> list[str]:
        """A line for people; none where every sample could be used."""
        return (
            [f"{len(self)} samples were skipped; log.jsonl in the run folder lists them"] if len(self) else []
        )

    def notes(self) -> list[dict[str, Any]]:
        """A record for the run's log; none where every sample could be used."""
        samples = [list(sample) for sample in self.samples]
        return [{"event": "skipped samples", "samples": samples}] if samples else []

    def __len__(self) -> int:
        return len(self.samples)

    def __str__(self) -> str:
        listed = "; ".join(f"{name}: {reason}" for name, reason in self.samples[:3])
        more = f"; and {len(self) - 3} more" if len(self) > 3 else ""
        return f"{len(self)} skipped" + (f" ({listed}{more})" if self.samples else "")


@dataclass(frozen=True)
class Pairs:
    """A user's set: the two halves, and what could not be used (for the run's log)."""

    name: str
    train: ImageTextArrays
    val: ImageTextArrays
    skipped: SkippedSamples


def load_pairs(
    source: str | Path | PairSource, *, image_size: int, val_fraction: float = VAL_FRACTION
) -> Pairs:
    """Read captioned images into memory: a path with one of the layouts in `pair_layouts`, or an opened source.

    Images are cut to their centre square and resized to (3, image_size, image_size). An image that
    cannot be read or has no caption is skipped and listed. Which side an image falls on depends on the
    bytes of its file alone: copies of one picture never meet across the split.

    Raises DataError (one line, with the remedy) for a missing or empty folder, a table without the
    columns, and a set of which nothing is left.
    """
    if image_size < 1:
        raise ValueError(f"image_size must be a positive number of pixels, got {image_size}")
    images, captions, keys = [], [], []
    skipped: list[tuple[str, str]] = []
    pairs = source if isinstance(source, PairSource) else open_pairs(Path(source))
    for pair in pairs:
        try:
            usable = decoded(pair, image_size)
        except UnusablePair as error:
            skipped.append((pair.name, str(error)))
        else:
            images.append(usable.image)
            captions.append(pair.captions)
            keys.append(usable.key)

    if not images:
        raise DataError(f"{pairs.name}: no usable captioned image; {SkippedSamples(tuple(skipped))}")
    everything = ImageTextArrays(torch.from_numpy(np.stack(images)), tuple(captions), name=pairs.name)
    train, val = split_by_hash(keys, val_fraction)
    return Pairs(
        name=pairs.name,
        train=everything.subset(train, f"{pairs.name} (train)"),
        val=everything.subset(val, f"{pairs.name} (val)"),
        skipped=SkippedSamples(tuple(skipped)),
    )
