"""What captioning learns from and is measured on: pictures with all that people say of each."""

import random
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Int64
from torch import Tensor

from cf_apps.data.captioned import CaptionedImages, DataError, ImageTextArrays
from cf_apps.data.captioned_shapes import CaptionedShapes
from cf_apps.data.coco_karpathy import KarpathySplit, is_coco_karpathy, load_coco_karpathy
from cf_apps.data.pairs import SkippedSamples
from cf_apps.data.shapes_captions import describe
from cf_apps.data.shapes_scene import Scenes
from cf_apps.data.sources import open_source

Held = Literal["val", "test"]
REFERENCES = 5  # captions of a procedural scene that a caption is compared with, as many as COCO has
HELD_OUT_SCENES = 1_024
_TEST_SEED = 2_000_000  # those of training are small, those of `val` begin at a million


@dataclass(frozen=True)
class CaptionSource:
    """A captioned set: what is trained on, and two held-out sides, to choose by and to report.

    Where a set has one held-out side only, both names mean that.
    """

    name: str
    train: CaptionedImages
    val: CaptionedImages
    test: CaptionedImages
    skipped: SkippedSamples = field(default_factory=SkippedSamples)

    def held_out(self, split: Held) -> CaptionedImages:
        return self.val if split == "val" else self.test


def open_captions(name: str, image_size: int, seed: int = 0) -> CaptionSource:
    """Open `shapes`, `emoji`, a folder of the user's own, or COCO in Karpathy's split (its .json, or the folder of it).

    `shapes` are described in reading order: what a picture does not show, no captioner can say.
    Raises DataError in one line when there is no such thing or nothing in it can be used.
    """
    if is_coco_karpathy(name):
        coco = load_coco_karpathy(name, image_size=image_size)
        return CaptionSource(name, coco.train, coco.val, coco.test, coco.skipped)
    source = open_source(name, image_size, seed)
    train = source.train
    val = test = source.val
    if isinstance(train, CaptionedShapes) and isinstance(val, CaptionedShapes):
        train, val, test = (
            CaptionedShapes(size, image_size, first, reading_order=True)
            for size, first in (
                (train.size, train.seed),
                (HELD_OUT_SCENES, val.seed),
                (HELD_OUT_SCENES, seed + _TEST_SEED),
            )
        )
    return CaptionSource(source.name, train, val, test, source.skipped)


def references(data: CaptionedImages, indices: Int64[Tensor, "b"]) -> list[list[str]]:
    """All captions of each picture; of a procedural scene five that are true of it, the same ones every time.

    Raises DataError for a kind of set that does not tell them.
    """
    if isinstance(data, KarpathySplit):
        return data.references(indices)
    if isinstance(data, ImageTextArrays):
        return [list(data.captions[i]) for i in indices.tolist()]
    if isinstance(data, CaptionedShapes):
        return [_true_captions(*data.truth(i), random.Random(f"{data.seed} {i}")) for i in indices.tolist()]
    raise DataError(f"{data.name} does not tell all captions of a picture; give its kind to caption.sources")


def _true_captions(scenes: Scenes, row: int, rng: random.Random) -> list[str]:
    drawn = [describe(scenes, row, rng) for _ in range(REFERENCES)]
    return [caption.text for caption in drawn if caption is not None]


def drawn_captions(
    data: CaptionedImages, indices: Int64[Tensor, "b"], generator: torch.Generator | None = None
) -> list[str]:
    """The captions of `data.batch`, without decoding pictures where they still lie on disk."""
    if isinstance(data, KarpathySplit):
        return data.captions(indices, generator)
    return data.batch(indices, generator).captions


def some_captions(data: CaptionedImages, most: int) -> list[str]:
    """A caption of each of the first `most` pictures, drawn from its phrasings; the same ones every time."""
    return drawn_captions(data, torch.arange(min(most, len(data))), torch.Generator().manual_seed(0))
