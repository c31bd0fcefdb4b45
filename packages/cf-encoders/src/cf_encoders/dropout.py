"""Dropout at a quarter of torch's price on a CPU: sixteen random bits an element instead of a float.

On other devices, and in a compiled graph, it is torch's own.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

LEVELS = (
    2**16
)  # p is rounded to a multiple of 1 / LEVELS; what is kept is scaled by the rounded p, so it is unbiased


class Dropout(nn.Module):
    """nn.Dropout, drawn by `drop`. It has no parameters."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Float[Tensor, "*d"]) -> Float[Tensor, "*d"]:
        return drop(x, self.p) if self.training else x

    def extra_repr(self) -> str:
        return f"p={self.p}"


def drop(x: Float[Tensor, "*d"], p: float) -> Float[Tensor, "*d"]:
    """x / (1 - p), but zero with probability p."""
    if p == 0:
        return x
    return x * kept(x, p) if _by_bits(x) else F.dropout(x, p)


def add_dropped(x: Float[Tensor, "*d"], y: Float[Tensor, "*d"], p: float) -> Float[Tensor, "*d"]:
    """x + drop(y, p), in one pass."""
    if p == 0 or not _by_bits(x):
        return x + drop(y, p)
    return torch.addcmul(x, y.to(x.dtype), kept(x, p))


def kept(x: Float[Tensor, "*d"], p: float) -> Float[Tensor, "*d"]:
    """A mask of x's shape: 0 with probability p, else 1 / (1 - p). Drawn from torch's CPU generator."""
    dropped = min(round(p * LEVELS), LEVELS - 1)
    if dropped == 0:
        return torch.ones_like(x)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    # uniform over [-2^15, 2^15): the `dropped` lowest become 0, the others 1, without leaving 16 bits
    last = dropped - LEVELS // 2 - 1
    bits = words.view(torch.int16)[: x.numel()].clamp_(last, last + 1).sub_(last)
    return bits.to(x.dtype).mul_(LEVELS / (LEVELS - dropped)).view(x.shape)


def _by_bits(x: Tensor) -> bool:
    return x.device.type == "cpu" and not torch.compiler.is_compiling()
