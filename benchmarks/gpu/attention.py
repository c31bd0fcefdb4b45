"""Attention over packed qkv: the kernel against every way of scaled_dot_product_attention."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from cf_transformer.kernels.attention import attention
from einops import rearrange
from gpu.floors import attention as attention_floor
from gpu.kernels import kernel_way
from gpu.measure import Op, Way
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

HEADS, WIDTH = 16, 64
SHAPES = {
    "256": (64, 256),
    "257": (64, 257),
    "1024": (16, 1024),
    "1025": (16, 1025),
}  # (b, n); 1 is the indicator
BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


def sdpa(backend: SDPBackend) -> Way:
    """By one backend, from the packed qkv and back to it, as a model needs it."""

    def way(qkv: Tensor) -> Tensor:
        q, k, v = rearrange(qkv, "b n three k e -> three b k n e")
        with sdpa_kernel(backend):
            return rearrange(F.scaled_dot_product_attention(q, k, v), "b k n e -> b n k e")

    return way


def attention_ops(device: torch.device, dry: bool) -> dict[str, Callable[[], Op]]:
    """One op for every length, in the order of their weight."""
    order = ("257", "256", "1025", "1024")
    return {f"n = {length}": lambda length=length: _op(length, device, dry) for length in order}


def _op(length: str, device: torch.device, dry: bool) -> Op:
    b, n = SHAPES[length]
    b, n, heads, e = (2, 5, 2, 8) if dry else (b, n, HEADS, WIDTH)

    def make(b: int) -> list[Tensor]:
        qkv = torch.randn(b, n, 3, heads, e, device=device, dtype=torch.bfloat16)
        return [qkv.requires_grad_()]

    return Op(
        b=b,
        make=make,
        ways={"kernel": kernel_way(attention, dry), **{name: sdpa(way) for name, way in BACKENDS.items()}},
        exact=sdpa(SDPBackend.MATH),
        passes=attention_floor(b, n, heads, e),
    )
