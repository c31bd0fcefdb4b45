"""What every data source hands to training: uint8 images, their captions, and a split that stays put."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from cf_apps.engine.ranks.draws import draws_of


class DataError(ValueError):
    """Data that cannot be trained on. The message names the thing and the remedy, in one line."""


@dataclass(frozen=True)
class CaptionedBatch:
    """images: uint8 (b, 3, h, w), RGB, 0..255; captions: one str per image."""

    images: UInt8[Tensor, "b 3 h w"]
    captions: list[str]


@runtime_checkable
class CaptionedImages(Protocol):
    """A finite set of square RGB images with captions; `batch` reads any of them in any order.

    With a generator, sources that know several phrasings of a caption draw one per image;
    without, they give the first one, so evaluation needs no seed.
    """

    @property
    def name(self) -> str: ...

    @property
    def image_size(self) -> int: ...

    def __len__(self) -> int: ...

    def batch(
        self, indices: Int64[Tensor, "b"], generator: torch.Generator | None = None
    ) -> CaptionedBatch: ...


@dataclass(frozen=True)
class ImageTextArrays:
    """Captioned images that fit in memory.

    images: uint8 (n, 3, s, s); captions: for each image its phrasings, at least one.
    Raises DataError when the two do not belong together.
    """

    images: UInt8[Tensor, "n 3 s s"]
    captions: tuple[tuple[str, ...], ...]
    name: str

    def __post_init__(self) -> None:
        if len(self.images) != len(self.captions):
            raise DataError(
                f"{self.name}: {len(self.images)} images but {len(self.captions)} captions; "
                "give one tuple of phrasings per image"
            )
        for i, phrasings in enumerate(self.captions):
            if not phrasings or not all(text.strip() for text in phrasings):
                raise DataError(f"{self.name}: image {i} has no caption or an empty one: {phrasings!r}")

    @property
    def image_size(self) -> int:
        return self.images.shape[-1]

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Int64[Tensor, "b"], generator: torch.Generator | None = None) -> CaptionedBatch:
        """The images at `indices`, each with one of its phrasings (the first one without a generator)."""
        phrasings = [self.captions[i] for i in indices.tolist()]
        if generator is None:
            return CaptionedBatch(self.images[indices], [texts[0] for texts in phrasings])
        draws = draws_of(generator).uniform(len(phrasings), dtype=torch.float64).tolist()
        captions = [texts[int(u * len(texts))] for u, texts in zip(draws, phrasings, strict=True)]
        return CaptionedBatch(self.images[indices], captions)

    def subset(self, indices: Int64[Tensor, "m"], name: str) -> "ImageTextArrays":
        """The same set cut down to `indices`, in that order."""
        return ImageTextArrays(self.images[indices], tuple(self.captions[i] for i in indices.tolist()), name)


def split_by_hash(
    keys: Sequence[str], val_fraction: float
) -> tuple[Int64[Tensor, "n_train"], Int64[Tensor, "n_val"]]:
    """(train, val) indices; the side of a key depends on the key alone.

    Adding, removing or reordering samples therefore moves no other sample across the border, and
    equal keys (variants of one thing) never end up on both sides. About `val_fraction` of the
    distinct keys fall into val; in a set so small that none would, the lowest hash does, as long as
    another key is left to train on.
    """
    if not 0.0 <= val_fraction < 1.0:
        raise ValueError(f"val_fraction must lie in [0, 1), got {val_fraction}")
    draws = torch.tensor([unit_hash(key) for key in keys], dtype=torch.float64)
    if val_fraction == 0.0 or len(draws) == 0:
        is_val = torch.zeros(len(keys), dtype=torch.bool)
    else:
        is_val = ((draws < val_fraction) | (draws == draws.min())) & (draws != draws.max())
    return (~is_val).nonzero().flatten(), is_val.nonzero().flatten()


def unit_hash(key: str) -> float:
    """A number in [0, 1) that every machine computes alike (Python's own hash() is salted per process)."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6]) / 2**48
