"""Guidance turns fields into a field: the solver never knows it is there.

    v_u + scale (v_c - v_u),     the same as  scale v_c + (1 - scale) v_u

`v_c` is the conditional (or better) field, `v_u` the unconditional (or worse) one. Variants of the sum are options:
    scale      a number, or a function of t (b,) -> (b,)
    rescale    from 0 to 1: how far the guided velocity's standard deviation, sample by sample, is brought back to that
               of v_c (Lin et al. 2023, section 3.4)
    zero_star  v_u is first scaled by <v_c, v_u> / |v_u|^2, its multiple nearest to v_c (CFG-Zero*, Fan et al. 2025)
    zero_until the velocity is 0 before this time (CFG-Zero*'s zero-init)
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cf_flowcore.path import expand_like
from cf_flowcore.velocity import IndicatorVelocity, Velocity

ALWAYS = (0.0, 1.0)
Scale = float | Callable[[Float[Tensor, "b"]], Float[Tensor, "b"]]


def classifier_free(
    v: IndicatorVelocity,
    scale: Scale = 7.0,
    *,
    interval: tuple[float, float] = ALWAYS,
    batched: bool = True,
    rescale: float = 0.0,
    zero_star: bool = False,
    zero_until: float = 0.0,
) -> Velocity:
    """scale v(x, t, is_null=False) + (1 - scale) v(x, t, is_null=True)   (CrossFlow eq. 3)

    One call of v on 2b rows, the conditional half first; `batched=False` makes two calls of b rows, for a v
    bound to per-sample conditions or short of memory. Scale 1 is the conditional field, bit for bit, and 0 the
    unconditional one, each in one call of b rows. Outside the times of `interval` (a closed one) only the conditional
    half runs, at the price of reading t from the device once a call. Other options: see the module.
    """

    def conditional(x: Tensor, t: Tensor) -> Tensor:
        return v(x, t, torch.zeros_like(t, dtype=torch.bool))

    def unconditional(x: Tensor, t: Tensor) -> Tensor:
        return v(x, t, torch.ones_like(t, dtype=torch.bool))

    rule = _Rule(scale, rescale, zero_star, zero_until)

    def guided(x: Tensor, t: Tensor) -> Tensor:
        if batched:
            v_c, v_u = _both_halves(v, x, t)
        else:
            v_c, v_u = conditional(x, t), unconditional(x, t)
        return rule(v_c, v_u, t)

    return _chosen(rule, guided, conditional, unconditional, interval)


def two_fields(
    v_c: Velocity,
    v_u: Velocity,
    scale: Scale = 7.0,
    *,
    interval: tuple[float, float] = ALWAYS,
    rescale: float = 0.0,
    zero_star: bool = False,
    zero_until: float = 0.0,
) -> Velocity:
    """scale v_c + (1 - scale) v_u of two fields of their own, each called on b rows

    Scale 1 is v_c, bit for bit, and 0 is v_u, with no call of the other. Options as in `classifier_free`.
    """
    rule = _Rule(scale, rescale, zero_star, zero_until)

    def guided(x: Tensor, t: Tensor) -> Tensor:
        return rule(v_c(x, t), v_u(x, t), t)

    return _chosen(rule, guided, v_c, v_u, interval)


def autoguidance(
    v_good: Velocity, v_bad: Velocity, scale: Scale = 2.0, *, interval: tuple[float, float] = ALWAYS
) -> Velocity:
    """v_bad + scale (v_good - v_bad): away from a worse model of the same thing   (CrossFlow section 4.3, AG)

    Both fields conditional. Scale 1 is v_good alone, scale 0 v_bad alone, each in one call.
    """
    return two_fields(v_good, v_bad, scale, interval=interval)


@dataclass(frozen=True)
class _Rule:
    """How two velocities become one."""

    scale: Scale
    rescale: float
    zero_star: bool
    zero_until: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.rescale <= 1.0:
            raise ValueError(f"rescale is a share from 0 to 1, got {self.rescale}; Lin et al. use 0.7")
        if not 0.0 <= self.zero_until < 1.0:
            raise ValueError(f"zero_until is a time in [0, 1), got {self.zero_until}")

    @property
    def plain(self) -> bool:
        """Whether scale 1 is v_c and scale 0 is v_u, with nothing else done to them."""
        return not callable(self.scale) and self.zero_until == 0.0

    def __call__(
        self, v_c: Float[Tensor, "b *d"], v_u: Float[Tensor, "b *d"], t: Float[Tensor, "b"]
    ) -> Float[Tensor, "b *d"]:
        scale = expand_like(self.scale(t).to(v_c.dtype), v_c) if callable(self.scale) else self.scale
        if self.zero_star:
            v_u = _nearest_multiple(v_u, v_c)
        guided = scale * v_c + (1.0 - scale) * v_u
        if self.rescale:
            guided = guided * (self.rescale * _std(v_c) / _std(guided) + (1.0 - self.rescale))
        if self.zero_until:
            guided = guided * expand_like((t >= self.zero_until).to(guided.dtype), guided)
        return guided


def _nearest_multiple(v_u: Float[Tensor, "b *d"], v_c: Float[Tensor, "b *d"]) -> Float[Tensor, "b *d"]:
    """The multiple of v_u nearest to v_c, sample by sample; v_u itself where it is zero."""
    flat_c, flat_u = (v.reshape(len(v), -1) for v in (v_c, v_u))
    inner, size = (flat_c * flat_u).sum(1), flat_u.square().sum(1)
    multiple = torch.where(size > 0, inner / size.clamp(min=torch.finfo(size.dtype).tiny), 1.0)
    return expand_like(multiple, v_u) * v_u


def _std(v: Float[Tensor, "b *d"]) -> Float[Tensor, "b *ones"]:
    """Of each sample, over its numbers; a single one has none, and its ratio to another is 1."""
    std = v.reshape(len(v), -1).std(1, correction=0)
    return expand_like(std.clamp(min=torch.finfo(v.dtype).tiny), v)


def _chosen(
    rule: _Rule,
    guided: Velocity,
    conditional: Velocity,
    unconditional: Velocity,
    interval: tuple[float, float],
) -> Velocity:
    """The cheapest field that is this guidance."""
    if rule.plain and rule.scale == 1.0:  # v_u has no part in it, and there is nothing to rescale
        return conditional
    inside = (
        unconditional if rule.plain and rule.scale == 0.0 and not (rule.zero_star or rule.rescale) else guided
    )
    return _within(interval, inside, conditional)


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
