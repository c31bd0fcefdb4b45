"""Peak signal-to-noise ratio, in dB."""

import torch
from jaxtyping import Float
from torch import Tensor


def squared_error(
    generated: Float[Tensor, "b c h w"], target: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b"]:
    """Mean over all channels and pixels of each picture, in float64."""
    return (generated.double() - target.double()).square().flatten(1).mean(1)


def psnr(
    generated: Float[Tensor, "b c h w"], target: Float[Tensor, "b c h w"], data_range: float
) -> Float[Tensor, "b"]:
    """10 log10(range^2 / mse) of each picture; infinite where it equals its target."""
    return decibels(squared_error(generated, target), data_range)


def decibels(mse: Float[Tensor, "*n"], data_range: float) -> Float[Tensor, "*n"]:
    """10 log10(range^2 / mse)"""
    return 10 * torch.log10(data_range**2 / mse)


def luma(rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
    """Y of BT.601 in studio range, 16..235, of pictures in 0..1: what super-resolution papers measure on."""
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64, device=rgb.device)
    return 16 + torch.einsum("bchw,c->bhw", rgb.double(), weights)[:, None]
