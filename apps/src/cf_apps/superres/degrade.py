"""The low-resolution picture of a sharp one, and that picture enlarged again: the source of the flow.

Both are bicubic with Keys' kernel (a = -1/2), antialiased where they shrink: Pillow's BICUBIC. CrossFlow appendix A
says so of the shrinking; of the enlarging it does not name the kernel.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate


def shrunk(pictures: UInt8[Tensor, "b 3 H W"], factor: int) -> UInt8[Tensor, "b 3 h w"]:
    """The pictures at 1 / factor of their size, rounded to bytes as a real small picture is."""
    _, _, height, width = pictures.shape
    if factor < 1 or height % factor or width % factor:
        raise ValueError(
            f"factor must be 1 or more and divide both sides of {height} x {width}, got {factor}"
        )
    small = interpolate(pictures.float(), (height // factor, width // factor), mode="bicubic", antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8)


def enlarged(pictures: UInt8[Tensor, "b 3 h w"], factor: int) -> Float[Tensor, "b 3 H W"]:
    """The pictures at `factor` times their size, in [0, 1]: the bicubic baseline, and what the flow starts from."""
    size = (pictures.shape[2] * factor, pictures.shape[3] * factor)
    return (interpolate(pictures.float(), size, mode="bicubic", antialias=True) / 255).clamp(0, 1)


def to_bytes(pictures: Float[Tensor, "b 3 h w"]) -> UInt8[Tensor, "b 3 h w"]:
    """Pictures in [0, 1] as they are saved."""
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8)
