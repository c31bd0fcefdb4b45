"""The solution at any time between the ends, from what the steps have left behind.

Within a step from x to y of length h, with the slopes k_0 and k_1 at its ends, D = y - x and s in [0, 1]:

    x(s) = x + s (D + (1 - s) ((h k_0 - D) + s ((2 D - h k_0 - h k_1) + (1 - s) h sum_i d_i k_i)))

Without the last term this is the cubic that has these values and slopes, of order 3. A d with sum_i d_i phi_i = 1/gamma
over the trees of order 4, and 0 over the smaller ones, makes it a quartic of order 4: dopri5's is Hairer's (Hairer,
Norsett & Wanner, Solving ODEs I, II.6).
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cf_flowcore.step import advance
from cf_flowcore.tableau import Tableau, terms


@dataclass(frozen=True)
class Segment:
    """One accepted step: its times, the states and slopes at its ends, and h sum_i d_i k_i where the method has d."""

    t: float
    t_next: float
    x: Float[Tensor, "b *d"]
    x_next: Float[Tensor, "b *d"]
    k: Float[Tensor, "b *d"]
    k_next: Float[Tensor, "b *d"]
    bend: Float[Tensor, "b *d"] | None

    def at(self, t: float) -> Float[Tensor, "b *d"]:
        """The state at t, between the ends; exactly the ends' own states there."""
        if t == self.t or t == self.t_next:
            return self.x if t == self.t else self.x_next
        h = self.t_next - self.t
        s = (t - self.t) / h
        moved = self.x_next - self.x
        inner = 2.0 * moved - h * (self.k + self.k_next)
        if self.bend is not None:
            inner = inner + (1.0 - s) * self.bend
        return self.x + s * (moved + (1.0 - s) * (h * self.k - moved + s * inner))


def segment(
    rule: Tableau,
    t: float,
    t_next: float,
    x: Float[Tensor, "b *d"],
    x_next: Float[Tensor, "b *d"],
    ks: Sequence[Float[Tensor, "b *d"]],
    k_next: Float[Tensor, "b *d"],
) -> Segment:
    """What is kept of a step."""
    bend = None
    if rule.dense is not None:
        bend = advance(torch.zeros_like(x), t_next - t, terms(rule.dense), ks)
    return Segment(t, t_next, x, x_next, ks[0], k_next, bend)


@dataclass(frozen=True)
class Dense:
    """The solution as a function of time: `dense([0.1, 0.25])` is (2, b, *d). Times outside what was solved raise."""

    segments: tuple[Segment, ...]

    def __call__(self, times: Sequence[float]) -> Float[Tensor, "k b *d"]:
        return torch.stack([self._at(float(t)) for t in times])

    def _at(self, t: float) -> Float[Tensor, "b *d"]:
        first, last = self.segments[0].t, self.segments[-1].t_next
        forward = last > first
        if not min(first, last) <= t <= max(first, last):
            raise ValueError(f"t={t:g} lies outside what was solved, {first:g} to {last:g}")
        sign = 1.0 if forward else -1.0
        place = bisect_right(self.segments, sign * t, key=lambda s: sign * s.t)
        return self.segments[place - 1].at(t)
