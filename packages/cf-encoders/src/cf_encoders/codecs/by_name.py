"""Image codecs by name, for configs and command lines."""

from pathlib import Path

from cf_encoders.codec import ImageCodec, PixelCodec
from cf_encoders.codecs.patch_dct import PatchDCTCodec
from cf_encoders.codecs.taef2 import TAEF2

IMAGE_CODECS = ("patch-dct", "pixels", "taef2")


def image_codec(name: str, path: Path | str | None = None) -> ImageCodec:
    """`pixels`, `patch-dct` (patch 4, 24 components) or `taef2` (path: the folder of its weights).

    ValueError lists the names.
    """
    match name:
        case "pixels":
            return PixelCodec()
        case "patch-dct":
            return PatchDCTCodec()
        case "taef2":
            if path is None:
                raise ValueError("taef2 needs the path of the folder with its weights")
            return TAEF2.from_folder(path)
        case _:
            raise ValueError(f"unknown image codec {name!r}; known: {', '.join(IMAGE_CODECS)}")
