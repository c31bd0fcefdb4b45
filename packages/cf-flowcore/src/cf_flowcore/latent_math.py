"""Arithmetic on source latents x_0: in CrossFlow the source space has meaning (CrossFlow section 5.1.3)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

_NEARLY_PARALLEL = 1e-4  # radians; below it sin(angle) loses its digits and a line is the same curve


def interpolate(
    x_0_a: Float[Tensor, "*d"], x_0_b: Float[Tensor, "*d"], steps: int
) -> Float[Tensor, "steps *d"]:
    """(1 - s) a + s b at `steps` even values of s, both ends included   (CrossFlow, linear interpolation)"""
    s = _fractions(steps, x_0_a)
    return (1.0 - s) * x_0_a + s * x_0_b


def interpolate_spherical(
    x_0_a: Float[Tensor, "*d"], x_0_b: Float[Tensor, "*d"], steps: int
) -> Float[Tensor, "steps *d"]:
    """sin((1 - s) w)/sin(w) a + sin(s w)/sin(w) b with w the angle between a and b, both ends included.

    Keeps the length of the latent on the way, where a straight line passes nearer to 0. Latents that point
    the same way are joined by the line; opposite ones are refused (ValueError): no great circle is the one.
    """
    cosine = torch.nn.functional.cosine_similarity(x_0_a.flatten(), x_0_b.flatten(), dim=0)
    angle = torch.acos(cosine.clamp(-1.0, 1.0))
    if angle < _NEARLY_PARALLEL:
        return interpolate(x_0_a, x_0_b, steps)
    if torch.pi - angle < _NEARLY_PARALLEL:
        raise ValueError("the latents point in opposite directions; use interpolate, or a latent in between")
    s = _fractions(steps, x_0_a)
    return (torch.sin((1.0 - s) * angle) * x_0_a + torch.sin(s * angle) * x_0_b) / torch.sin(angle)


def add(x_0_a: Float[Tensor, "b *d"], x_0_b: Float[Tensor, "b *d"]) -> Float[Tensor, "b *d"]:
    """restandardise(a + b): "a dog" + "a hat"."""
    return combine([x_0_a, x_0_b])


def subtract(x_0_a: Float[Tensor, "b *d"], x_0_b: Float[Tensor, "b *d"]) -> Float[Tensor, "b *d"]:
    """restandardise(a - b)"""
    return combine([x_0_a], [x_0_b])


def combine(
    plus: Sequence[Float[Tensor, "b *d"]], minus: Sequence[Float[Tensor, "b *d"]] = ()
) -> Float[Tensor, "b *d"]:
    """restandardise(sum of plus - sum of minus): a whole expression, re-standardised once at its end."""
    if not plus:
        raise ValueError("combine needs at least one latent to add; plus was empty")
    total = torch.stack(list(plus)).sum(dim=0)
    for x_0 in minus:
        total = total - x_0
    return restandardise(total)


def restandardise(x_0: Float[Tensor, "b *d"]) -> Float[Tensor, "b *d"]:
    """(x_0 - mean) / std over all elements of each sample: the scale of a source sample after arithmetic."""
    flat = x_0.reshape(len(x_0), -1)
    std, mean = torch.std_mean(flat, dim=1, correction=0, keepdim=True)
    if bool((std == 0).any()):
        raise ValueError("a constant latent cannot be brought to std 1; a latent minus itself is one")
    return ((flat - mean) / std).reshape(x_0.shape)


def _fractions(steps: int, like: Float[Tensor, "*d"]) -> Float[Tensor, "steps *ones"]:
    """0 = s_1 < ... < s_steps = 1, shaped to multiply `like`."""
    if steps < 2:
        raise ValueError(f"steps counts both ends, so it is at least 2, got {steps}")
    s = torch.linspace(0.0, 1.0, steps, dtype=like.dtype, device=like.device)
    return s.view(-1, *[1] * like.ndim)
