"""Adaptive steps: error estimate, step control, first step. One host read a step decides accept or reject."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cf_flowcore.errors import NonFiniteVelocity, SolveError, StepUnderflow, TooManyEvaluations
from cf_flowcore.step import Field, Run, runge_kutta_step
from cf_flowcore.tableaus import Tableau


@dataclass(frozen=True)
class StepControl:
    """The next step is h * safety * e_n^-(integral + proportional)/order * e_(n-1)^(proportional/order).

    e is the error in units of the tolerance. The factor stays in [least, largest], and in
    [least_accepted, largest] after an accepted step.
    """

    integral: float
    proportional: float
    safety: float = 0.9
    least: float = 0.2
    least_accepted: float = 0.2
    largest: float = 10.0

    def __post_init__(self) -> None:
        if not (0.0 < self.safety <= 1.0 and 0.0 < self.least < 1.0 < self.largest):
            raise ValueError(f"StepControl needs 0 < safety <= 1 and 0 < least < 1 < largest, got {self}")

    def after_accepted(self, error: float, previous: float, order: int) -> float:
        """The factor on h where error <= 1; `previous` is the error of the accepted step before."""
        return min(self.largest, max(self.least_accepted, self._raw(error, previous, order)))

    def after_rejected(self, error: float, order: int) -> float:
        """The factor on h where error > 1, at most `safety`."""
        return max(self.least, self._raw(error, 1.0, order))

    def _raw(self, error: float, previous: float, order: int) -> float:
        error, previous = max(error, 1e-10), max(previous, 1e-4)  # so that a zero error stays a number
        exponent = (self.integral + self.proportional) / order
        return self.safety * error**-exponent * previous ** (self.proportional / order)


PI_CONTROL = StepControl(integral=0.65, proportional=0.2)
"""Hairer & Wanner's code DOPRI5 (beta = 0.04): exponents 0.2 - 0.75 beta = 0.85 / 5 and beta = 0.2 / 5."""

I_CONTROL = StepControl(integral=1.0, proportional=0.0, least_accepted=1.0)
"""torchdiffeq's rule, to compare NFE with the papers."""


@dataclass(frozen=True)
class Tolerance:
    """A step is accepted when the RMS over the batch of error / (atol + rtol |x|) is at most 1."""

    rtol: float
    atol: float

    def __post_init__(self) -> None:
        if not (self.rtol >= 0.0 and self.atol >= 0.0 and self.rtol + self.atol > 0.0):
            raise ValueError(f"rtol and atol must be >= 0 and not both 0, got {self.rtol} and {self.atol}")

    def scale(self, size: Float[Tensor, "b *d"]) -> Float[Tensor, "b *d"]:
        """atol + rtol size, with size = |x|, in at least float32"""
        return wide(size).mul(self.rtol).add_(self.atol)


def solve_adaptive(
    field: Field,
    x: Float[Tensor, "b *d"],
    stops: Sequence[float],
    tableau: Tableau,
    *,
    tolerance: Tolerance,
    control: StepControl,
    max_nfe: int,
    first_step: float | None,
    max_step: float | None,
    keep_steps: bool,
) -> Run:
    """Steps of the controller's choice from stops[0] to stops[-1], landing exactly on every stop.

    Keeps the state at each stop, or at each accepted step where `keep_steps`.
    """
    t, t_1 = stops[0], stops[-1]
    direction = math.copysign(1.0, t_1 - t)
    longest = min(max_step or math.inf, abs(t_1 - t))
    times, states, accepted, rejected = [t], [x], 0, 0
    k, ratios, previous = field(x, t), None, 1.0
    h = first_step or first_step_size(field, x, k, t, t_1, tableau, tolerance)

    for stop in stops[1:]:
        while t != stop:
            h = min(h, longest)
            failure = _cannot_go_on(field, tableau, t, h, max_nfe, ratios)
            if failure:
                return Run([*times, t], [*states, x], accepted, rejected, failure)
            lands = abs(stop - t) <= h
            t_next = stop if lands else t + direction * h
            x_next, ks = runge_kutta_step(field, tableau, x, t, t_next, k)
            ratios = error_ratios(tableau, t_next - t, ks, x, x_next, tolerance)
            error = float(rms(ratios))  # waits for the device: the one host read of a step
            if not math.isfinite(error):
                failure = _non_finite(tableau, t, t_next, ks)
                if failure:
                    return Run([*times, t], [*states, x], accepted, rejected, failure)
                error = math.inf  # the estimate overflowed, the field did not: a shorter step will do
            if error > 1.0:
                rejected += 1
                h = abs(t_next - t) * control.after_rejected(error, tableau.order)
                continue
            accepted += 1
            h = abs(t_next - t) * control.after_accepted(error, previous, tableau.order)
            t, x, previous = t_next, x_next, error
            k = ks[-1] if tableau.first_same_as_last else field(x, t)
            if keep_steps or t == stop:
                times.append(t)
                states.append(x)
    return Run(times, states, accepted, rejected, None)


@torch.no_grad()
def error_ratios(
    tableau: Tableau,
    h: float,
    ks: Sequence[Float[Tensor, "b *d"]],
    x: Float[Tensor, "b *d"],
    x_next: Float[Tensor, "b *d"],
    tolerance: Tolerance,
) -> Float[Tensor, "b *d"]:
    """|h sum_i e_i k_i| / (atol + rtol max(|x|, |x_next|)), elementwise, in at least float32."""
    assert tableau.error is not None
    total = wide(ks[0]) * (h * tableau.error[0])
    for weight, k in zip(tableau.error[1:], ks[1:], strict=True):
        if weight != 0.0:
            total.add_(k, alpha=h * weight)
    return total.div_(tolerance.scale(torch.maximum(x.abs(), x_next.abs())))


@torch.no_grad()
def first_step_size(
    field: Field,
    x: Float[Tensor, "b *d"],
    k: Float[Tensor, "b *d"],
    t: float,
    t_1: float,
    tableau: Tableau,
    tolerance: Tolerance,
) -> float:
    """|h| from the sizes of x, v and dv/dt   (Hairer, Norsett & Wanner, Solving ODEs I, II.4)

    One probe of the field, kept inside [t, t_1], and one host read.
    """
    span, scale = t_1 - t, tolerance.scale(x.abs())
    d_0, d_1 = rms(wide(x) / scale), rms(wide(k) / scale)
    h_0 = torch.where((d_0 < 1e-5) | (d_1 < 1e-5), 1e-6, 0.01 * d_0 / d_1).clamp(max=abs(span))
    h_signed = h_0.to(field.time_dtype) * math.copysign(1.0, span)
    t_probe = (t + h_signed).clamp(min(t, t_1), max(t, t_1))
    k_probe = field((x + h_signed * k).to(x.dtype), t_probe)
    d_2 = rms(wide(k_probe - k) / scale) / h_0
    steepest = torch.maximum(d_1, d_2)
    h_1 = torch.where(
        steepest <= 1e-15, (1e-3 * h_0).clamp(min=1e-6), (0.01 / steepest) ** (1 / tableau.order)
    )
    h = float(torch.minimum(100.0 * h_0, h_1))
    # a NaN here is the field's; a small step will meet it and name the sample
    return h if math.isfinite(h) and h > 0.0 else 1e-6


def wide(x: Float[Tensor, "b *d"]) -> Float[Tensor, "b *d"]:
    """x in at least float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def rms(x: Float[Tensor, "b *d"]) -> Float[Tensor, ""]:
    """The root of the mean square over everything."""
    return torch.linalg.vector_norm(x) / math.sqrt(max(x.numel(), 1))


def _cannot_go_on(
    field: Field, tableau: Tableau, t: float, h: float, max_nfe: int, ratios: Tensor | None
) -> SolveError | None:
    """The error that forbids another step of size h at t, if one does."""
    if field.nfe + tableau.stages - 1 > max_nfe:
        sample = _worst(ratios)
        return TooManyEvaluations(
            f"stopped at t={t:.6g} after {field.nfe} evaluations of v, max_nfe={max_nfe}; largest error in "
            f"sample {sample}; loosen rtol and atol, raise max_nfe, or use a fixed method with steps=",
            t=t,
            sample=sample,
        )
    if t + h == t or t - h == t:
        sample = _worst(ratios)
        return StepUnderflow(
            f"the step fell to {h:.3g} at t={t:.6g}; largest error in sample {sample}; the field jumps there "
            "or the tolerance is below what its precision allows: loosen rtol and atol, or use float64",
            t=t,
            sample=sample,
        )
    return None


def _non_finite(
    tableau: Tableau, t: float, t_next: float, ks: Sequence[Float[Tensor, "b *d"]]
) -> SolveError | None:
    """The error that names the first stage and sample with a NaN or an infinity, if there is one."""
    for c, k in zip(tableau.c, ks, strict=True):
        bad = ~torch.isfinite(k.reshape(len(k), -1)).all(dim=1)
        if bad.any():
            sample, t_stage = int(bad.int().argmax()), t + c * (t_next - t)
            return NonFiniteVelocity(
                f"v is not finite for sample {sample} at t={t_stage:.6g}; look at the weights of the model "
                "and at x_0, or limit the step with max_step",
                t=t_stage,
                sample=sample,
            )
    return None


def _worst(ratios: Float[Tensor, "b *d"] | None) -> int | None:
    """The sample with the largest error in the last attempt."""
    return None if ratios is None else int(ratios.reshape(len(ratios), -1).square().sum(dim=1).argmax())
