"""Numbers as cosines and sines: the time and the places of a DiT. Nothing here is learned or stored."""

import torch
from jaxtyping import Float
from torch import Tensor

from cf_transformer.precision import at_least_fp32

MAX_PERIOD = 10_000.0


def time_features(t: Float[Tensor, "b"], n_features: int, scale: float) -> Float[Tensor, "b n"]:
    """[cos(scale t f) | sin(scale t f)], half of the n features each; in fp32 at least.

    The frequencies were chosen for diffusion steps 0 ... 1000 (DDPM). Fed with t in [0, 1] as it is, the features of
    the 51 times 0, 0.02, ..., 1 lie on one line, more or less (effective rank 1.02); times 1000 they spread (22.9).
    """
    wide = at_least_fp32(t)
    angles = scale * wide[:, None] * _frequencies(n_features // 2, wide.device, wide.dtype)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def grid_positions(grid: tuple[int, int], d: int, like: Tensor) -> Float[Tensor, "n d"]:
    """[sin(x f) | cos(x f) | sin(y f) | cos(y f)] of every cell, row-major, a quarter of the d channels each.

    Computed in fp32 at least; returned in the precision and on the device of `like`.
    """
    f = _frequencies(d // 4, like.device, torch.promote_types(like.dtype, torch.float32))
    y, x = torch.meshgrid(*(torch.arange(side, device=f.device) for side in grid), indexing="ij")
    angles = (axis.flatten()[:, None] * f for axis in (x, y))
    return torch.cat([wave for a in angles for wave in (a.sin(), a.cos())], dim=-1).to(like.dtype)


def _frequencies(n: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "n"]:
    """f_i = 10,000^(-i / n), radians per unit, falling from 1."""
    return MAX_PERIOD ** (-torch.arange(n, device=device, dtype=dtype) / n)
