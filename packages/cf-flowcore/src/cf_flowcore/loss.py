"""Regressions along a path: flow matching, and the baselines it was compared with. All give one number per sample.

Where the source is drawn by an encoder, gradients reach x_0 through x_t and through the target: nothing is detached.

On signs: score here is the gradient of ln p_t everywhere. Lipman et al. define it so in eq. 42, but in eq. 43 and 46
they write its negative; in our sign the probability flow of VP is v = beta / 2 (x + s).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from cf_flowcore.convert import require_gaussian
from cf_flowcore.path import Path, expand_like
from cf_flowcore.times import Times, Uniform, uniform
from cf_flowcore.velocity import Velocity

Weight = Callable[[Float[Tensor, "b"]], Float[Tensor, "b"]]
SCORE_WEIGHTS = ("sm", "scoreflow")


def flow_matching_loss(
    v: Velocity,
    x_0: Float[Tensor, "b *d"],
    x_1: Float[Tensor, "b *d"],
    *,
    path: Path,
    t: Float[Tensor, "b"] | None = None,
    times: Times = uniform,
    weight: Weight | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b"]:
    """mean |v(x_t, t) - v_t|^2 over the dimensions of each sample   (CrossFlow eq. 4, Lipman et al. eq. 14)

    On CondOT this is "FM-OT", on VP "FM w/ Diffusion" of the paper's tables. Pass `t` (b,) to choose the times, or a
    law `times` to draw them with `generator`; `uniform` ends at the path's t_max. `weight(t)` multiplies each sample's
    loss. Raises ValueError where both `t` and `times` are given.
    """
    t = drawn_times(path, x_1, t, times, generator)
    loss = mean_square(v(path.x_t(x_0, x_1, t), t) - path.v(x_0, x_1, t))
    return loss if weight is None else weight(t) * loss


def noise_matching_loss(
    eps: Velocity,
    x_0: Float[Tensor, "b *d"],
    x_1: Float[Tensor, "b *d"],
    *,
    path: Path,
    t: Float[Tensor, "b"] | None = None,
    times: Times = uniform,
    weight: Weight | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b"]:
    """mean |eps(x_t, t) - x_0|^2: DDPM's loss   (Lipman et al. eq. 44-45)

    Sound for any source, as a prediction of x_0; sample with `as_velocity(eps, "noise", path=path)`. Options as in
    `flow_matching_loss`.
    """
    t = drawn_times(path, x_1, t, times, generator)
    loss = mean_square(eps(path.x_t(x_0, x_1, t), t) - x_0)
    return loss if weight is None else weight(t) * loss


def score_matching_loss(
    s: Velocity,
    x_0: Float[Tensor, "b *d"],
    x_1: Float[Tensor, "b *d"],
    *,
    path: Path,
    t: Float[Tensor, "b"] | None = None,
    times: Times = uniform,
    weight: str | Weight = "sm",
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b"]:
    """mean lambda(t) |s(x_t, t) + x_0 / b|^2: -x_0 / b is the conditional score   (Lipman et al. eq. 43)

    weight  "sm": lambda = b^2, the score matching of the paper's tables; "scoreflow": lambda = g^2 = 2 b W / a, which
            is beta on VP and bounds the likelihood (Song et al. 2021); or any function of t

    Raises ValueError where the source is not declared Gaussian. Other options as in `flow_matching_loss`.
    """
    require_gaussian(path, "score matching")
    if isinstance(weight, str) and weight not in SCORE_WEIGHTS:
        raise ValueError(f"unknown weight {weight!r}; known: {', '.join(SCORE_WEIGHTS)}, or a function of t")
    t = drawn_times(path, x_1, t, times, generator)
    a, b, _, _ = path.coefficients(t)
    score = s(path.x_t(x_0, x_1, t), t)
    times_b = mean_square(expand_like(b, score) * score + x_0)  # b^2 |s + x_0 / b|^2, with nothing divided
    if weight == "sm":
        return times_b
    g_or_lambda = 2.0 * path.rates(t).bw / a if isinstance(weight, str) else weight(t)
    return g_or_lambda / b.square() * times_b


def drawn_times(
    path: Path,
    x_1: Float[Tensor, "b *d"],
    t: Float[Tensor, "b"] | None,
    times: Times,
    generator: torch.Generator | None,
) -> Float[Tensor, "b"]:
    """`t` where it is given, else a draw of the law; `uniform` means uniform up to the path's t_max."""
    if t is not None:
        if times is not uniform:
            raise ValueError("the loss got both t and times; pass the one you want used")
        return t
    law = Uniform(high=path.t_max) if times is uniform else times
    return law(len(x_1), generator=generator, device=x_1.device)


def mean_square(error: Float[Tensor, "b *d"]) -> Float[Tensor, "b"]:
    """The mean of error^2 over all but the first axis, in at least float32."""
    error = error.to(torch.promote_types(error.dtype, torch.float32))
    return error.reshape(len(error), -1).square().mean(dim=1)
