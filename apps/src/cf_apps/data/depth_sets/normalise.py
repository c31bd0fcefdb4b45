"""Depth for a network: one picture's own range as [-1, 1], and a guess where there is no reading."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

LOW, HIGH = 0.02, 0.98  # Marigold's percentiles


def percentiles(
    depth: Float[Tensor, "b h w"], valid: Bool[Tensor, "b h w"], low: float = LOW, high: float = HIGH
) -> tuple[Float[Tensor, "b"], Float[Tensor, "b"]]:
    """The `low` and the `high` quantile of each map's readings, interpolated linearly; (0, 1) where it has none."""
    ends = [
        torch.quantile(d[v].double(), torch.tensor([low, high], dtype=torch.float64, device=d.device))
        if bool(v.any())
        else torch.tensor([0.0, 1.0], dtype=torch.float64, device=d.device)
        for d, v in zip(depth, valid, strict=True)
    ]
    near, far = torch.stack(ends).to(depth.dtype).unbind(1)
    return near, far


def affine_normalised(depth: Float[Tensor, "b h w"], valid: Bool[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """2 (d - d_2%) / (d_98% - d_2%) - 1, clipped to [-1, 1]: what an affine-invariant network learns   (Marigold)

    The percentiles are of each map's readings. A map of one single depth becomes 0.
    """
    near, far = (end[:, None, None] for end in percentiles(depth, valid))
    span = far - near
    scaled = 2 * (depth - near) / torch.where(span > 0, span, 1) - 1
    return torch.where(span > 0, scaled.clamp(-1, 1), 0)


def filled(depth: Float[Tensor, "b h w"], valid: Bool[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """Depth with a guess where there is no reading: the mean of the readings in the smallest surrounding cell.

    Cells are 2 x 2, 4 x 4, ... pixels. Readings stay as they are; a map without any becomes 0. A network that walks
    from x_0 to x_1 must see something at those pixels that looks like depth; the loss leaves them out.
    """
    h, w = depth.shape[1:]
    total, weight = torch.where(valid, depth, 0)[:, None], valid[:, None].to(depth.dtype)
    guess, known, side = total, valid[:, None], 1
    while not bool(known.all()) and max(total.shape[2:]) > 1:
        total, weight, side = _halved(total), _halved(weight), 2 * side
        cells = torch.cat([total / weight.clamp(min=1), weight], 1)
        mean, readings = F.interpolate(cells, scale_factor=float(side))[:, :, :h, :w].split(1, 1)
        guess = torch.where(known, guess, mean)
        known = known | (readings > 0)
    return guess[:, 0]


def _halved(x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 _ _"]:
    """Sums of 2 x 2 cells; an odd side is padded with zeros, which weigh nothing."""
    h, w = x.shape[2:]
    return 4 * F.avg_pool2d(F.pad(x, (0, w % 2, 0, h % 2)), 2)
