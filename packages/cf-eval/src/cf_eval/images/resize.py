"""Ways to resize, which move a FID more than anything else one may choose.

All take floats, (b, c, h, w), and give (b, c, height, width); a picture that already has the size comes back as it
was. Those named after Pillow work on values of 0..255.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from torch import Tensor

Images = Float[Tensor, "b c h w"]
Resized = Float[Tensor, "b c i j"]
Size = tuple[int, int]


def tf1_bilinear(images: Images, size: Size) -> Resized:
    """TensorFlow 1's resize_bilinear: source position = index * in / out, without half a pixel, no antialias.

    Along the width first and in float32, as the graph of the 2015 Inception network does it.
    """
    for axis, out in ((3, size[1]), (2, size[0])):
        images = _lerp(images, axis, out)
    return images


def _lerp(images: Images, axis: int, out: int) -> Tensor:
    length = images.shape[axis]
    step = torch.tensor(length / out, dtype=torch.float32)
    position = torch.arange(out, dtype=torch.float32) * step
    low = position.long().clamp_max(length - 1)
    high = (low + 1).clamp_max(length - 1)
    weight = (position - low).to(images.device, images.dtype)
    below, above = (images.index_select(axis, i.to(images.device)) for i in (low, high))
    return below + (above - below) * (weight[:, None] if axis == 2 else weight)


def half_pixel_bilinear(images: Images, size: Size) -> Resized:
    """torch's bilinear, align_corners=False: source position = (index + 1/2) * in / out - 1/2, no antialias."""
    return F.interpolate(images, size, mode="bilinear", align_corners=False)


def antialias_bilinear(images: Images, size: Size) -> Resized:
    """torch's bilinear with a triangle as wide as the reduction: torchmetrics' default."""
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)


def pil_bicubic(images: Images, size: Size) -> Resized:
    """Pillow's BICUBIC of each channel as floats (mode F), clipped to 0..255 and not rounded: clean-fid's.

    Weights are made in double precision as Pillow does; torch's antialiased bicubic makes them in single, which
    moves noisy pictures by a hundredth of a level.
    """
    rows, columns = (
        keys_weights(length, out).to(images) for length, out in zip(images.shape[2:], size, strict=True)
    )
    return (rows @ (images @ columns.T)).clamp(0, 255)


def keys_weights(length: int, out: int) -> Float64[Tensor, "o l"]:
    """Of every input pixel for every output pixel: Keys' cubic with a = -1/2, as wide as the reduction."""
    scale = length / out
    centre = (torch.arange(out, dtype=torch.float64) + 0.5) * scale - 0.5
    x = ((centre[:, None] - torch.arange(length)) / max(scale, 1.0)).abs()
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
    return weights / weights.sum(1, keepdim=True)


def pil_bicubic_bytes(images: Images, size: Size) -> Resized:
    """Pillow's BICUBIC of 8-bit pictures: along the width, then the height, rounded and clipped after each."""
    for passed in ((images.shape[2], size[1]), size):
        images = (pil_bicubic(images, passed) + 0.5).floor().clamp(0, 255)
    return images


def half_pixel_bicubic(images: Images, size: Size) -> Resized:
    """torch's bicubic (a = -3/4) without antialias: what CMMD's code does."""
    return F.interpolate(images, size, mode="bicubic", align_corners=False)


RESIZERS: dict[str, Callable[[Tensor, Size], Tensor]] = {
    "tf1-bilinear": tf1_bilinear,
    "half-pixel-bilinear": half_pixel_bilinear,
    "antialias-bilinear": antialias_bilinear,
    "pil-bicubic": pil_bicubic,
    "pil-bicubic-bytes": pil_bicubic_bytes,
    "half-pixel-bicubic": half_pixel_bicubic,
}
