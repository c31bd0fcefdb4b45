"""Two numeric habits used by every loss here: reduce in float32, clamp without killing the gradient."""

import torch
from jaxtyping import Float
from torch import Tensor


def widen(x: Float[Tensor, "*d"]) -> Float[Tensor, "*d"]:
    """float16 and bfloat16 to float32; float32 and float64 stay. Sums over a latent need the digits."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def clamp_keeping_gradient(x: Float[Tensor, "*d"], low: float, high: float) -> Float[Tensor, "*d"]:
    """Value of `x.clamp(low, high)`, gradient of `x`.

    A plain clamp has zero gradient outside [low, high]: a parameter that once left the range could never
    come back. Here the loss still pulls on it.
    """
    return x + (x.clamp(low, high) - x).detach()
