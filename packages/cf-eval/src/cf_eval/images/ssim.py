"""Structural similarity (Wang et al. 2004) in the variants whose numbers are in use.

    SSIM = (2 m_x m_y + c_1)(2 s_xy + c_2) / ((m_x^2 + m_y^2 + c_1)(s_x^2 + s_y^2 + c_2))

with local means m, variances s^2 and covariance s_xy under a window, c_1 = (0.01 range)^2, c_2 = (0.03 range)^2.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from torch import Tensor


@dataclass(frozen=True)
class SSIMVariant:
    """size: side of the window. sigma: of a Gaussian window, None for a uniform one. sample_covariance: n - 1.

    border: "valid", only windows inside the picture; "reflect", pictures mirrored and every pixel counted.
    """

    size: int
    sigma: float | None
    sample_covariance: bool
    border: str


SSIM_VARIANTS = {
    #                            size  sigma  sample covariance  border
    "wang":         SSIMVariant(   11,   1.5,             False, "valid"),    # the paper, and skimage's Gaussian
    "uniform7":     SSIMVariant(    7,  None,              True, "valid"),    # skimage's default
    "torchmetrics": SSIMVariant(   11,   1.5,             False, "reflect"),
}  # fmt: skip


def ssim(
    generated: Float[Tensor, "b c h w"],
    target: Float[Tensor, "b c h w"],
    data_range: float,
    variant: str = "wang",
) -> Float64[Tensor, "b"]:
    """Of each picture: the mean over channels and windows. 1 for equal pictures.

    Raises ValueError for an unknown variant or pictures smaller than the window.
    """
    if variant not in SSIM_VARIANTS:
        raise ValueError(f"unknown SSIM variant {variant!r}; known: {', '.join(SSIM_VARIANTS)}")
    chosen = SSIM_VARIANTS[variant]
    h, w = generated.shape[2:]
    if min(h, w) < chosen.size:
        raise ValueError(
            f"images of {h} x {w} are smaller than the {chosen.size} x {chosen.size} SSIM window"
        )
    x, y = generated.double(), target.double()
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = (local_mean(z, chosen) for z in (x, y, x * x, y * y, x * y))
    n = chosen.size**2
    unbias = n / (n - 1) if chosen.sample_covariance else 1.0
    var_x, var_y = unbias * (mean_xx - mean_x**2), unbias * (mean_yy - mean_y**2)
    cov = unbias * (mean_xy - mean_x * mean_y)
    c_1, c_2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    likeness = (2 * mean_x * mean_y + c_1) * (2 * cov + c_2)
    return (likeness / ((mean_x**2 + mean_y**2 + c_1) * (var_x + var_y + c_2))).flatten(1).mean(1)


def local_mean(x: Float64[Tensor, "b c h w"], variant: SSIMVariant) -> Float64[Tensor, "b c i j"]:
    """Under the window at each place; separable, so along the height and then the width."""
    weights = window(variant).to(x.device)
    if variant.border == "reflect":
        x = F.pad(x, (variant.size // 2,) * 4, mode="reflect")
    flat = x.flatten(0, 1)[:, None]
    return F.conv2d(F.conv2d(flat, weights[:, None][None, None]), weights[None, None, None]).unflatten(
        0, x.shape[:2]
    )[:, :, 0]


def window(variant: SSIMVariant) -> Float64[Tensor, "k"]:
    """Weights along one axis; their sum is 1."""
    offset = torch.arange(variant.size, dtype=torch.float64) - variant.size // 2
    weights = (
        torch.ones_like(offset) if variant.sigma is None else (-(offset**2) / (2 * variant.sigma**2)).exp()
    )
    return weights / weights.sum()
