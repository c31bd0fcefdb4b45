"""The real captioned set that comes with the package: 1,905 Noto emoji, ready offline.

Pictures by Google (Apache-2.0), captions from labels and tags; licences in `assets/emoji/`, made by
`tools/make_emoji_set.py`.
"""

import json
from importlib.resources import files

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from cf_apps.data.captioned import DataError, ImageTextArrays, split_by_hash

STORED_SIZE = 64
VAL_FRACTION = 0.1


def load_emoji(split: str = "train", image_size: int = STORED_SIZE) -> ImageTextArrays:
    """One half of the set at 64 px, or at 32 px (2 x 2 means); two or three phrasings per picture.

    Pictures that differ by gender or direction only, and flags that several countries share, are one
    group; the hash of the group decides the split, so no val picture has a twin in train.
    """
    if split not in ("train", "val"):
        raise ValueError(f"unknown split {split!r}; known: train, val")
    if image_size not in (32, STORED_SIZE):
        raise DataError(f"the emoji set has image_size 32 and 64, got {image_size}")
    folder = files("cf_apps") / "assets" / "emoji"
    records = json.loads((folder / "captions.json").read_text(encoding="utf-8"))
    pictures = _pictures(len(records))
    everything = ImageTextArrays(
        images=pictures if image_size == STORED_SIZE else _halve(pictures),
        captions=tuple(tuple(record["captions"]) for record in records),
        name="emoji",
    )
    train, val = split_by_hash([record["group"] for record in records], VAL_FRACTION)
    return everything.subset(train if split == "train" else val, f"emoji ({split})")


def _pictures(count: int) -> UInt8[Tensor, "{count} 3 64 64"]:
    """Cut the first `count` pictures, row by row, out of the sprite."""
    from PIL import Image

    with (
        (files("cf_apps") / "assets" / "emoji" / "sprite.webp").open("rb") as file,
        Image.open(file) as sheet,
    ):
        pixels = torch.from_numpy(np.array(sheet.convert("RGB")))
    height, width, _ = pixels.shape
    tiles = pixels.reshape(height // STORED_SIZE, STORED_SIZE, width // STORED_SIZE, STORED_SIZE, 3)
    return tiles.permute(0, 2, 4, 1, 3).reshape(-1, 3, STORED_SIZE, STORED_SIZE)[:count].contiguous()


def _halve(images: UInt8[Tensor, "n 3 s s"]) -> UInt8[Tensor, "n 3 s/2 s/2"]:
    """The mean of every 2 x 2 square, rounded."""
    return torch.nn.functional.avg_pool2d(images.float(), 2).round().to(torch.uint8)
