"""The fused ops in plain torch: the maths, the way on a CPU, and the oracle of the kernels."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

RMS_EPS = 1e-8
LAYER_NORM_EPS = 1e-5

Norm = Literal["rms", "layer"]
Leaves = tuple[Float[Tensor, "_ _"], Float[Tensor, "_ _"], Float[Tensor, "_ _"], Float[Tensor, "_ _"]]


def rms_norm(x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """x / (rms(x) + 1e-8), rms(x) = |x|_2 / sqrt(d); zero, with a gradient, for a token of zeros."""
    rms = torch.linalg.vector_norm(x, dim=-1, keepdim=True) * x.shape[-1] ** -0.5
    return x * (rms + RMS_EPS).reciprocal()


def layer_norm(x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """(x - mean) / sqrt(variance + 1e-5) over the d channels."""
    return F.layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPS)


NORMS = {"rms": rms_norm, "layer": layer_norm}


def known_norm(norm: str) -> str:
    """`norm`, or an error that lists the known ones."""
    if norm not in NORMS:
        raise ValueError(f"unknown norm {norm!r}; known: {', '.join(NORMS)}")
    return norm


def add_td_norm(
    x: Float[Tensor, "b n d"],
    r: Float[Tensor, "b n d"] | None,
    gamma: Float[Tensor, "#b 1 d"],
    beta: Float[Tensor, "#b 1 d"] | None,
    *,
    norm: Norm,
) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b n d"]]:
    """s = x + r in x's precision, or x, and y = normalise(s) gamma + beta; the norm in gamma's, y in x's."""
    s = x if r is None else (x + r).to(x.dtype)
    return _scaled(NORMS[known_norm(norm)](_wide(s, gamma)), gamma, beta).to(x.dtype), s


def time_lerps(leaves: Sequence[Leaves], t: Float[Tensor, "b"]) -> list[Float[Tensor, "_ b 1 _"]]:
    """gamma(t) = s param0 + (1 - s) param1 with s = sigmoid((1 + w) (1 - 2 t) + b), in fp32 at least, of every set."""
    return [time_lerp(*one, t) for one in leaves]


def time_lerp(
    param0: Float[Tensor, "m d"],
    param1: Float[Tensor, "m d"],
    w: Float[Tensor, "m d"],
    b: Float[Tensor, "m d"],
    t: Float[Tensor, "b"],
) -> Float[Tensor, "m b 1 d"]:
    """gamma(t) of one set of m vectors."""
    dtype = torch.promote_types(w.dtype, torch.float32)
    param0, param1, w, b = (rearrange(leaf.to(dtype), "m d -> m 1 1 d") for leaf in (param0, param1, w, b))
    c = 1 - 2 * rearrange(t.to(dtype), "b -> b 1 1")
    return torch.lerp(param1, param0, torch.sigmoid((1 + w) * c + b))


def geglu(ab: Float[Tensor, "*b twice_f"]) -> Float[Tensor, "*b f"]:
    """gelu(a) b of the first half a and the second half b of the last axis; gelu is the exact one, with erf."""
    a, b = ab.chunk(2, dim=-1)
    return F.gelu(a) * b


def gated_linear(
    x: Float[Tensor, "*b d"],
    weight: Float[Tensor, "twice_f d"],
    bias: Float[Tensor, "twice_f"],
    activation: Callable[[Tensor], Tensor],
) -> Float[Tensor, "*b f"]:
    """activation(W_0 x + b_0) (W_1 x + b_1) with weight = [W_0 | W_1]: two products, on whose results torch is faster
    than on the halves of one."""
    (w_0, w_1), (b_0, b_1) = weight.chunk(2), bias.chunk(2)
    return activation(F.linear(x, w_0, b_0)) * F.linear(x, w_1, b_1)


def concat_td_norm(
    maps: Sequence[Float[Tensor, "b n d"]], gamma: Float[Tensor, "#b 1 sd"], beta: Float[Tensor, "#b 1 sd"]
) -> Float[Tensor, "b n sd"]:
    """Layer norm over all channels of the concatenated maps, gamma and beta; in gamma's precision, returned in x's."""
    whole = torch.cat(tuple(maps), dim=-1)
    return _scaled(layer_norm(_wide(whole, gamma)), gamma, beta).to(whole.dtype)


def _wide(x: Tensor, gamma: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, gamma.dtype))


def _scaled(normed: Tensor, gamma: Tensor, beta: Tensor | None) -> Tensor:
    return normed * gamma if beta is None else torch.addcmul(beta, normed, gamma)
