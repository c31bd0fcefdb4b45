"""Pictures by name, for tasks that need no captions: `shapes`, `emoji`, or a folder of the user's own."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import Int64, UInt8
from torch import Tensor

from cf_apps.data.bundled import load_emoji
from cf_apps.data.captioned import DataError, split_by_hash
from cf_apps.data.captioned_shapes import CaptionedShapes
from cf_apps.data.imagenet_folder import is_imagenet, load_folder, load_imagenet
from cf_apps.data.pairs import SkippedSamples
from cf_apps.data.sources import EMOJI, SHAPES

PICTURES = f"{SHAPES}, {EMOJI}, a folder of pictures, or one with train and val folders as ImageNet has"
_SHAPES_SIZE = 16_384
_HELD_OUT_SIZE = 1_024
_VAL_SEED, _TEST_SEED = 1_000_000, 2_000_000  # training seeds are small


@runtime_checkable
class PictureSet(Protocol):
    """A finite set of square RGB pictures; `batch` reads any of them in any order."""

    @property
    def name(self) -> str: ...

    @property
    def image_size(self) -> int: ...

    def __len__(self) -> int: ...

    def batch(self, indices: Int64[Tensor, "b"]) -> UInt8[Tensor, "b 3 s s"]:
        """Bytes, (b, 3, image_size, image_size)."""
        ...


@dataclass(frozen=True)
class PictureArray:
    """Pictures in memory."""

    pictures: UInt8[Tensor, "n 3 s s"]
    name: str

    @property
    def image_size(self) -> int:
        return self.pictures.shape[-1]

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(self, indices: Int64[Tensor, "b"]) -> UInt8[Tensor, "b 3 s s"]:
        return self.pictures[indices]


@dataclass(frozen=True)
class ShapesPictures:
    """captioned_shapes without its captions, which cost more than drawing."""

    shapes: CaptionedShapes

    @property
    def name(self) -> str:
        return self.shapes.name

    @property
    def image_size(self) -> int:
        return self.shapes.image_size

    def __len__(self) -> int:
        return len(self.shapes)

    def batch(self, indices: Int64[Tensor, "b"]) -> UInt8[Tensor, "b 3 s s"]:
        return self.shapes.scenes(indices)[0]


@dataclass(frozen=True)
class Pictures:
    """A set as the tasks see it: train; val to choose by; test to report.

    too_small: pictures dropped because enlarging them would teach blur. skipped: those that cannot be read.
    """

    name: str
    train: PictureSet
    val: PictureSet
    test: PictureSet
    too_small: int = 0
    skipped: SkippedSamples = field(default_factory=SkippedSamples)


def open_pictures(name: str, image_size: int, seed: int = 0) -> Pictures:
    """Open `shapes` (drawn from `seed`; val and test are the same for all seeds), `emoji`, or a folder of pictures.

    Raises DataError in one line when there is no such thing or nothing in it can be used.
    """
    if name == SHAPES:
        return Pictures(
            name,
            ShapesPictures(CaptionedShapes(_SHAPES_SIZE, image_size, seed)),
            ShapesPictures(CaptionedShapes(_HELD_OUT_SIZE, image_size, _VAL_SEED)),
            ShapesPictures(CaptionedShapes(_HELD_OUT_SIZE, image_size, _TEST_SEED)),
        )
    if name == EMOJI:
        return _emoji(image_size)
    folder = Path(name)
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{name} {problem}; give a built-in set ({SHAPES}, {EMOJI}) or a folder of pictures")
    found = load_imagenet(folder, image_size) if is_imagenet(folder) else load_folder(folder, image_size)
    return Pictures(str(folder.resolve()), found.train, found.val, found.test, found.too_small, found.skipped)


def _emoji(image_size: int) -> Pictures:
    """The bundled set; its held-out half cut in two by the pictures themselves."""
    held = load_emoji("val", image_size).images
    keys = [hashlib.sha256(picture.numpy().tobytes()).hexdigest() for picture in held]
    test, val = split_by_hash(keys, 0.5)
    return Pictures(
        EMOJI,
        PictureArray(load_emoji("train", image_size).images, "emoji (train)"),
        PictureArray(held[val], "emoji (val)"),
        PictureArray(held[test], "emoji (test)"),
    )
