"""The user's own captioned images: read once, made square, kept in memory, split for good."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cf_apps.data.captioned import DataError, ImageTextArrays, split_by_hash
from cf_apps.data.pair_layouts import read_raw_pairs
from cf_apps.data.square_image import UnreadableImage, square_rgb


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

    train: ImageTextArrays
    val: ImageTextArrays
    skipped: SkippedSamples


def load_pairs(source: str | Path, *, image_size: int, val_fraction: float = 0.05) -> Pairs:
    """Read a folder (or parquet file) of captioned images; layouts in `pair_layouts`.

    Images are cut to their centre square and resized to (3, image_size, image_size). An image that
    cannot be read or has no caption is skipped and listed. Which side an image falls on depends on the
    bytes of its file alone: copies of one picture never meet across the split.

    Raises DataError (one line, with the remedy) for a missing or empty folder, a table without the
    columns, and a set of which nothing is left.
    """
    source = Path(source)
    if image_size < 1:
        raise ValueError(f"image_size must be a positive number of pixels, got {image_size}")
    images, captions, keys = [], [], []
    skipped: list[tuple[str, str]] = []
    for pair in read_raw_pairs(source):
        if not pair.captions:
            skipped.append((pair.name, "no caption"))
            continue
        try:
            data = pair.read()
            images.append(square_rgb(data, image_size))
        except FileNotFoundError:
            skipped.append((pair.name, "no such file"))
        except (OSError, UnreadableImage) as error:
            skipped.append((pair.name, str(error)))
        else:
            captions.append(pair.captions)
            keys.append(hashlib.sha256(data).hexdigest())

    if not images:
        raise DataError(f"{source}: no usable captioned image; {SkippedSamples(tuple(skipped))}")
    everything = ImageTextArrays(torch.from_numpy(np.stack(images)), tuple(captions), name=str(source))
    train, val = split_by_hash(keys, val_fraction)
    return Pairs(
        train=everything.subset(train, f"{source} (train)"),
        val=everything.subset(val, f"{source} (val)"),
        skipped=SkippedSamples(tuple(skipped)),
    )
