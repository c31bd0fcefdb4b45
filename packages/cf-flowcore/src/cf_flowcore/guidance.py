"""Guidance turns fields into a field: the solver never knows it is there."""

import torch
from jaxtyping import Float
from torch import Tensor

from cf_flowcore.path import expand_like
from cf_flowcore.velocity import IndicatorVelocity, Velocity

ALWAYS = (0.0, 1.0)


def classifier_free(
    v: IndicatorVelocity,
    scale: float = 7.0,
    *,
    interval: tuple[float, float] = ALWAYS,
    batched: bool = True,
) -> Velocity:
    """scale v(x, t, is_null=False) + (1 - scale) v(x, t, is_null=True)   (CrossFlow eq. 3)

    One call of v on 2b rows, the conditional half first; `batched=False` makes two calls of b rows, for a v
    bound to per-sample conditions or short of memory. Scale 1 is the conditional field, 0 the unconditional
    one, each in one call of b rows. Outside the times of `interval` (a closed one) only the conditional half
    runs, at the price of reading t from the device once a call.
    """

    def conditional(x: Tensor, t: Tensor) -> Tensor:
        return v(x, t, torch.zeros_like(t, dtype=torch.bool))

    def unconditional(x: Tensor, t: Tensor) -> Tensor:
        return v(x, t, torch.ones_like(t, dtype=torch.bool))

    def guided(x: Tensor, t: Tensor) -> Tensor:
        if batched:
            v_c, v_u = _both_halves(v, x, t)
        else:
            v_c, v_u = conditional(x, t), unconditional(x, t)
        return scale * v_c + (1.0 - scale) * v_u

    if scale == 1.0:
        return conditional
    return _within(interval, unconditional if scale == 0.0 else guided, conditional)


def autoguidance(v_good: Velocity, v_bad: Velocity, scale: float = 2.0) -> Velocity:
    """v_bad + scale (v_good - v_bad): away from a worse model of the same thing   (CrossFlow section 4.3, AG)

    Both fields conditional. Scale 1 is v_good alone, scale 0 v_bad alone, each in one call.
    """

    def guided(x: Tensor, t: Tensor) -> Tensor:
        bad = v_bad(x, t)
        return bad + scale * (v_good(x, t) - bad)

    if scale == 1.0:
        return v_good
    return v_bad if scale == 0.0 else guided


def _both_halves(
    v: IndicatorVelocity, x: Float[Tensor, "b *d"], t: Float[Tensor, "b"]
) -> tuple[Float[Tensor, "b *d"], Float[Tensor, "b *d"]]:
    """The conditional and the unconditional velocity in one call."""
    is_null = torch.arange(2 * len(t), device=t.device) >= len(t)
    v_c, v_u = v(torch.cat([x, x]), torch.cat([t, t]), is_null).chunk(2)
    return v_c, v_u


def _within(interval: tuple[float, float], inside: Velocity, outside: Velocity) -> Velocity:
    """`inside` at times of the closed interval, `outside` at the others."""
    low, high = interval
    if not low < high:
        raise ValueError(
            f"interval must be (low, high) with low < high, got {interval}; for none use scale=1"
        )
    if (low, high) == ALWAYS:
        return inside

    def limited(x: Tensor, t: Tensor) -> Tensor:
        is_inside = (low <= t) & (t <= high)
        count = int(is_inside.sum())  # waits for the device: the only way to leave a half out
        if count == 0:
            return outside(x, t)
        if count == len(t):
            return inside(x, t)
        return torch.where(expand_like(is_inside, x), inside(x, t), outside(x, t))

    return limited
