"""Pictures in whatever form one has them, to batches of 8-bit tensors. The value range is told, never guessed."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cf_eval.images.protocols import ROUNDINGS

# what the numbers of floating-point pictures may be; "uint8" ones are bytes
VALUE_RANGES = {"uint8": None, "0..1": (0.0, 1.0), "-1..1": (-1.0, 1.0)}
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
# what Pillow turns into 8-bit RGB without losing more than transparency
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")

# a (b, 3, h, w) tensor, a (b, h, w, 3) array, a Pillow image, a folder or a file, or a list of such single pictures
Images = Any


def listed(images: Images) -> Tensor | np.ndarray | Sequence[Any]:
    """The same pictures in a form that has a length: a folder as its sorted files (searched to any depth).

    Raises ValueError for a folder without pictures and for anything that is no pictures at all.
    """
    if isinstance(images, str | Path):
        return picture_files(images) if Path(images).is_dir() else [Path(images)]
    if isinstance(images, Tensor) and (images.ndim != 4 or images.shape[1] != 3):
        raise ValueError(f"tensors of images must be (b, 3, h, w), got {tuple(images.shape)}")
    if isinstance(images, np.ndarray) and (images.ndim != 4 or images.shape[3] != 3):
        raise ValueError(
            f"arrays of images must be (b, h, w, 3), got {images.shape}; "
            "for (b, 3, h, w) pass torch.from_numpy(array)"
        )
    if isinstance(images, Tensor | np.ndarray | list | tuple):
        return images
    if hasattr(images, "convert"):  # Pillow is optional: its class cannot be asked for
        return [images]
    raise ValueError(
        f"images must be a tensor, an array, a Pillow image, a path or a list, not {type(images)}"
    )


def picture_files(folder: str | Path) -> list[Path]:
    """The pictures of a folder and the folders in it, sorted by path. Raises ValueError where there are none."""
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f"no pictures in {folder}; files ending in {', '.join(SUFFIXES)} are read")
    return files


def image_batches(
    images: Images, value_range: str = "uint8", rounding: str = "round", batch_size: int = 32
) -> Iterator[Tensor]:
    """Batches of uint8 (b, 3, h, w), in order; pictures of one batch have one size, those of a list may differ.

    value_range: of tensors and arrays: "uint8", "0..1" or "-1..1"; files and Pillow images are 8-bit anyway.
    rounding: how floats become bytes, "round" or "truncate". Files are read when their batch comes up.

    Raises ValueError for values outside of the range, another dtype, another shape, or a file that cannot be read.
    """
    if value_range not in VALUE_RANGES:
        raise ValueError(f"unknown value_range {value_range!r}; known: {', '.join(VALUE_RANGES)}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    images = listed(images)
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(images).movedim(3, 1)
    if isinstance(images, Tensor):
        for start in range(0, len(images), batch_size):
            yield to_bytes(images[start : start + batch_size], value_range, rounding, start)
        return
    batch: list[Tensor] = []
    for index, image in enumerate(images):
        one = _single(image, value_range, rounding, index)
        if batch and (one.shape != batch[0].shape or len(batch) == batch_size):
            yield torch.stack(batch)
            batch = []
        batch.append(one)
    if batch:
        yield torch.stack(batch)


def to_bytes(
    images: Tensor, value_range: str, rounding: str = "round", first: int = 0
) -> UInt8[Tensor, "b 3 h w"]:
    """8-bit pictures of numbers in a range; `first` is the index of the first one, for errors."""
    if value_range == "uint8":
        if images.dtype != torch.uint8:
            raise ValueError(
                f"images of {images.dtype} with value_range 'uint8'; pass value_range='0..1' or '-1..1' for "
                "floats, or images.to(torch.uint8) for whole numbers of 0..255"
            )
        return images
    low, high = require_range(images, value_range, first)
    levels = (images.detach().float() - low) * (255 / (high - low))
    return (levels + ROUNDINGS[rounding]).floor().clamp(0, 255).to(torch.uint8)


def require_range(
    images: Float[Tensor, "b c h w"] | Tensor, value_range: str, first: int = 0
) -> tuple[float, float]:
    """The ends of a range of floats. Raises ValueError naming the first picture that is not in it."""
    limits = VALUE_RANGES[value_range]
    if limits is None or not images.is_floating_point():
        raise ValueError(f"images of {images.dtype} with value_range {value_range!r}; bytes are 'uint8'")
    flat = images.detach().flatten(1)
    outside = ~((flat >= limits[0]) & (flat <= limits[1])).all(1)  # true for NaN
    if outside.any():
        index = int(outside.nonzero()[0])
        low, high = float(flat[index].min()), float(flat[index].max())
        raise ValueError(
            f"image {first + index} has values from {low:.4g} to {high:.4g}, outside of {value_range}; "
            "name the right value_range, or clamp what a decoder overshoots"
        )
    return limits


def _single(image: Any, value_range: str, rounding: str, index: int) -> UInt8[Tensor, "3 h w"]:
    """One picture of a list."""
    if isinstance(image, str | Path):
        return read_picture(image)
    if isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] == 3:
        image = torch.from_numpy(image).movedim(2, 0)
    if isinstance(image, Tensor) and image.ndim == 3 and image.shape[0] == 3:
        return to_bytes(image[None], value_range, rounding, index)[0]
    if hasattr(image, "convert"):
        return _from_pillow(image, f"image {index}")
    what = getattr(image, "shape", type(image))
    raise ValueError(
        f"image {index} is {what}; give a (3, h, w) tensor, a (h, w, 3) array, a Pillow image or a path"
    )


def read_picture(path: str | Path) -> UInt8[Tensor, "3 h w"]:
    """One file as RGB. Raises ValueError naming a file that cannot be read, ImportError without Pillow."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('reading picture files needs Pillow: pip install "cf-eval[images]"') from error
    try:
        with Image.open(path) as image:
            return _from_pillow(image, str(path))
    except OSError as error:  # Pillow's "cannot identify" and "truncated" too
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error


def _from_pillow(image: Any, name: str) -> UInt8[Tensor, "3 h w"]:
    if image.mode not in MODES:
        raise ValueError(
            f"{name} has Pillow mode {image.mode}; convert it to 8-bit RGB yourself, since it would be clipped"
        )
    return torch.from_numpy(np.array(image.convert("RGB"))).movedim(2, 0)
