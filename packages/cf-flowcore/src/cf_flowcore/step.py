"""What both solver loops share: the field as they call it, one Runge-Kutta step, what a run hands back."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cf_flowcore.control import wide
from cf_flowcore.errors import SolveError
from cf_flowcore.tableau import Tableau, Terms
from cf_flowcore.velocity import Velocity


class Field:
    """v with its bookkeeping: t handed over as (b,), the output checked, calls and rows counted in `nfe`, `rows`."""

    def __init__(self, v: Velocity, x_0: Float[Tensor, "b *d"]) -> None:
        self.v = v
        self.time_dtype = torch.promote_types(x_0.dtype, torch.float32)
        self.nfe = 0
        self.rows = 0

    def __call__(
        self, x: Float[Tensor, "b *d"], t: float | Float[Tensor, ""] | Float[Tensor, "b"]
    ) -> Float[Tensor, "b *d"]:
        """v(x, t) in the dtype of x; one time t is given to every sample."""
        self.nfe += 1
        self.rows += x.shape[0]
        if not isinstance(t, Tensor):  # filled from a Python number on the device: no copy, so nothing waits
            times = self._filled(x, t)
        elif t.ndim:
            times = t if t.dtype == self.time_dtype else t.to(self.time_dtype)
        else:  # a real (b,): forward-mode autodiff in v does not take an expanded number
            times = t.to(self.time_dtype).expand(len(x)).contiguous()
        k = self.v(x, times)
        if k.shape != x.shape:
            raise ValueError(f"v must return the shape of x, {tuple(x.shape)}, got {tuple(k.shape)}")
        return k if k.dtype == x.dtype else k.to(x.dtype)

    def _filled(self, x: Float[Tensor, "b *d"], t: float) -> Float[Tensor, "b"]:
        return torch.full((x.shape[0],), t, dtype=self.time_dtype, device=x.device)


@dataclass(frozen=True)
class Run:
    """The states kept, with their times; the steps counted; the failure that ended it, if one did."""

    times: list[float]
    states: list[Float[Tensor, "b *d"]]
    accepted: int
    rejected: int
    failure: SolveError | None = None


def runge_kutta_step(
    field: Field,
    tableau: Tableau,
    x: Float[Tensor, "b *d"],
    t: float,
    t_next: float,
    k_first: Float[Tensor, "b *d"] | None = None,
) -> tuple[Float[Tensor, "b *d"], list[Float[Tensor, "b *d"]]]:
    """x at t_next and the stages k_i; `k_first` is v(x, t) where the caller has it already."""
    h = t_next - t
    ks = [field(x, t) if k_first is None else k_first]
    x_stage = x
    for c, row in zip(tableau.c[1:], tableau.a_terms[1:], strict=True):
        x_stage = advance(x, h, row, ks)
        ks.append(field(x_stage, t_next if c == 1.0 else t + c * h))
    x_next = x_stage if tableau.first_same_as_last else advance(x, h, tableau.b_terms, ks)
    return x_next, ks


def advance(
    x: Float[Tensor, "b *d"], h: float, terms: Terms, ks: Sequence[Float[Tensor, "b *d"]]
) -> Float[Tensor, "b *d"]:
    """x + h sum_j w_j k_j over the terms (j, w_j), at least one"""
    (stage, weight), *rest = terms
    total = torch.add(x, ks[stage], alpha=h * weight)
    for stage, weight in rest:  # on our own sum: no new memory, and autograd needs none of it
        total.add_(ks[stage], alpha=h * weight)
    return total


def combined(terms: Terms, ks: Sequence[Float[Tensor, "b *d"]]) -> tuple[Float[Tensor, "b *d"], float]:
    """sum_j w_j k_j over the terms, in at least float32, as a tensor and the factor it still lacks.

    The factor, the first weight, would cost a pass of its own here; the caller has something to multiply by anyway.
    """
    (stage, factor), *rest = terms
    total = wide(ks[stage])
    for place, (stage, weight) in enumerate(rest):
        share = weight / factor
        total = torch.add(total, ks[stage], alpha=share) if place == 0 else total.add_(ks[stage], alpha=share)
    return total, factor
