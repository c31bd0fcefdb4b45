"""The flow matching loss: a regression of the velocity along the path."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from cf_flowcore.path import Path
from cf_flowcore.times import Times, uniform
from cf_flowcore.velocity import Velocity


def flow_matching_loss(
    v: Velocity,
    x_0: Float[Tensor, "b *d"],
    x_1: Float[Tensor, "b *d"],
    *,
    path: Path,
    t: Float[Tensor, "b"] | None = None,
    times: Times = uniform,
    weight: Callable[[Float[Tensor, "b"]], Float[Tensor, "b"]] | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b"]:
    """mean |v(x_t, t) - v_t|^2 over the dimensions of each sample   (CrossFlow eq. 4, Lipman et al. eq. 14)

    Pass `t` (b,) to choose the times, or a law `times` to draw them with `generator`; `weight(t)` multiplies
    each sample's loss. Nothing is detached: gradients reach x_0 through x_t and through the target, which is
    how CrossFlow trains its encoder. Raises ValueError where both `t` and `times` are given.
    """
    if t is None:
        t = times(len(x_1), generator=generator, device=x_1.device)
    elif times is not uniform:
        raise ValueError("flow_matching_loss got both t and times; pass the one you want used")
    loss = mean_square(v(path.x_t(x_0, x_1, t), t) - path.v(x_0, x_1, t))
    return loss if weight is None else weight(t) * loss


def mean_square(error: Float[Tensor, "b *d"]) -> Float[Tensor, "b"]:
    """The mean of error^2 over all but the first axis, in at least float32."""
    error = error.to(torch.promote_types(error.dtype, torch.float32))
    return error.reshape(len(error), -1).square().mean(dim=1)
