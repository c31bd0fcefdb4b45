"""A set that is already in memory, `shapes` or `emoji`, as a stream like any other: its pictures as PNG."""

import io
from collections.abc import Iterator

import torch
from jaxtyping import UInt8
from torch import Tensor

from cf_apps.data.captioned import CaptionedImages, ImageTextArrays
from cf_apps.data.streams.raw import PairSource, PairUnit, RawPair


def built_in_source(name: str, data: CaptionedImages) -> PairSource:
    """One unit. All phrasings where the set lists them, else the one that each picture has without a generator."""

    def read(start: int) -> Iterator[RawPair]:
        for index in range(start, len(data)):
            one = data.batch(torch.tensor([index]))
            said = data.captions[index] if isinstance(data, ImageTextArrays) else tuple(one.captions)
            yield RawPair(f"{name}[{index}]", _png(one.images[0]), said)

    return PairSource(name, [PairUnit(name, read)], f"{data.name} {len(data)} {data.image_size}")


def _png(picture: UInt8[Tensor, "3 h w"]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
