"""A user's own picture from a file: whole, upright, RGB; and the sizes that a model wants."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from cf_apps.data.captioned import DataError
from cf_apps.data.square_image import MAX_PIXELS, UnreadableImage, rgb

__all__ = ["MAX_PIXELS", "centre_cropped", "fitted", "read_picture", "resized"]


def read_picture(path: str | Path) -> UInt8[Tensor, "3 h w"]:
    """The whole picture as one looks at it, bytes in RGB.

    Grey, palette, CMYK and 16-bit grey become RGB, transparent parts white; EXIF rotation is applied; of an
    animation the first frame. From 1 x 1 to MAX_PIXELS pixels. Raises DataError in one line, with the path
    and the remedy.
    """
    return torch.from_numpy(_rgb(Path(path)))


def _rgb(path: Path) -> UInt8[np.ndarray, "3 h w"]:
    """The file's pixels; every way in which that can fail is a DataError."""
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder; give the pictures in it, for example {path / '*.png'}")
        if path.exists() and not path.is_file():  # a pipe would be waited for without end
            raise DataError(f"{path} is not a file; give a picture")
        return rgb(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"no such picture: {path}; check the name") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; give another picture") from error
    except UnreadableImage as error:
        raise DataError(
            f"cannot read {path}: {error}; save it again, as PNG or smaller, or leave it out"
        ) from error


def fitted(picture: UInt8[Tensor, "3 h w"], height: int, width: int) -> UInt8[Tensor, "3 {height} {width}"]:
    """The largest centre part with the sides' ratio `height` : `width`, resized to that."""
    _, h, w = picture.shape
    scale = min(h / height, w / width)
    part = centre_cropped(picture, max(1, round(scale * height)), max(1, round(scale * width)))
    return resized(part, height, width)


def centre_cropped(picture: UInt8[Tensor, "3 h w"], height: int, width: int) -> UInt8[Tensor, "3 H W"]:
    """`height` x `width` pixels around the centre; a side that is shorter than that stays as it is."""
    _, h, w = picture.shape
    top, left = max(0, (h - height) // 2), max(0, (w - width) // 2)
    return picture[:, top : top + height, left : left + width]


def resized(picture: UInt8[Tensor, "3 h w"], height: int, width: int) -> UInt8[Tensor, "3 {height} {width}"]:
    """Antialiased bicubic, by Pillow (torch 2.11 to 2.15 cannot do it on bytes one pixel wide)."""
    from PIL import Image

    if min(height, width) < 1:
        raise ValueError(f"a picture has at least 1 x 1 pixels, got {height} x {width}")
    image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
    small = image.resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).contiguous()
