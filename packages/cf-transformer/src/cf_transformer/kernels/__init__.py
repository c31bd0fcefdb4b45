"""Fused ops of DiMR: plain torch, and Triton kernels where they pay.

Each op is one line that chooses between `reference` and a kernel; `using(mode)` overrules the choice, `explain()` tells
it. A kernel's gradients are of first order; for derivatives of them, or for `torch.func`, the maths is in torch.
"""

from collections.abc import Sequence
from itertools import chain

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cf_transformer.kernels import concat_norm, gated, reference, td_norm, time_lerp
from cf_transformer.kernels.attention import attention
from cf_transformer.kernels.dispatch import Choice, by_triton, explain, fused_anyway, not_worth_it, using
from cf_transformer.kernels.qk_norm_rope import qk_norm_rope
from cf_transformer.kernels.reference import Leaves, Norm

__all__ = [
    "Choice",
    "add_td_norm",
    "attention",
    "concat_td_norm",
    "explain",
    "geglu",
    "linear_geglu",
    "qk_norm_rope",
    "time_lerps",
    "using",
]


def add_td_norm(
    x: Float[Tensor, "b n d"],
    r: Float[Tensor, "b n d"] | None,
    gamma: Float[Tensor, "#b 1 d"],
    beta: Float[Tensor, "#b 1 d"] | None,
    *,
    norm: Norm,
) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b n d"]]:
    """(y, s): s = x + r in x's precision, x itself if r is None; y = normalise(s) gamma + beta, or without beta.

    `rms`: s / (rms(s) + 1e-8), DiMR's norm; `layer`: layer norm with 1e-5 inside the root. gamma and beta are one
    vector per sample, or one for all. An unknown norm is an error that lists the known.
    """
    refusal, loses = td_norm.refusal(x, r, gamma, beta), not_worth_it(x.numel(), x, r, gamma, beta)
    op = td_norm if by_triton("add_td_norm", x, refusal=refusal, loses=loses) else reference
    return op.add_td_norm(x, r, gamma, beta, norm=norm)


def time_lerps(leaves: Sequence[Leaves], t: Float[Tensor, "b"]) -> list[Float[Tensor, "_ b 1 _"]]:
    """gamma(t), in fp32 at least, of every set (param0, param1, w, b) of m vectors of width d: one (m, b, 1, d) each.

    c = 1 - 2 t,   s = sigmoid((1 + w) c + b),   gamma(t) = s param0 + (1 - s) param1   (DiMR). m and d differ freely
    between sets. The kernel takes all sets in one launch: hand it those of a whole model.
    """
    refusal, loses = time_lerp.refusal(leaves, t), fused_anyway(t, *chain.from_iterable(leaves))
    op = time_lerp if by_triton("time_lerps", t, refusal=refusal, loses=loses) else reference
    return op.time_lerps(leaves, t)


def geglu(ab: Float[Tensor, "*b twice_f"]) -> Float[Tensor, "*b f"]:
    """gelu(a) v of the halves [a | v] of the last axis; gelu is the exact one, with erf."""
    refusal, loses = gated.refusal(ab), not_worth_it(ab.numel(), ab)
    op = gated if by_triton("geglu", ab, refusal=refusal, loses=loses) else reference
    return op.geglu(ab)


def linear_geglu(
    x: Float[Tensor, "*b d"], weight: Float[Tensor, "twice_f d"], bias: Float[Tensor, "twice_f"]
) -> Float[Tensor, "*b f"]:
    """gelu(W_0 x + b_0) (W_1 x + b_1) with weight = [W_0 | W_1]: one product and a kernel, or two products."""
    loses = not_worth_it(x.numel() // x.shape[-1] * len(weight), x, weight, bias)
    if by_triton("geglu", x, loses=loses):
        return gated.geglu(F.linear(x, weight, bias))
    return reference.gated_linear(x, weight, bias, F.gelu)


def concat_td_norm(
    maps: Sequence[Float[Tensor, "b n d"]], gamma: Float[Tensor, "#b 1 sd"], beta: Float[Tensor, "#b 1 sd"]
) -> Float[Tensor, "b n sd"]:
    """gamma LN(x) + beta of the concatenation x of all maps' channels; LN over all of them, with 1e-5 in its root."""
    elements = len(maps) * maps[0].numel()
    refusal, loses = concat_norm.refusal(maps, gamma, beta), not_worth_it(elements, *maps, gamma, beta)
    op = concat_norm if by_triton("concat_td_norm", maps[0], refusal=refusal, loses=loses) else reference
    return op.concat_td_norm(maps, gamma, beta)
