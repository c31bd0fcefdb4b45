"""The adaptive loop: steps of its own choice, one host read each to accept or reject."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cf_flowcore.control import NORMS, StepControl, Tolerance, rms, wide
from cf_flowcore.dense import Segment, segment
from cf_flowcore.errors import SolveError, non_finite_velocity, step_underflow, too_many_evaluations
from cf_flowcore.step import Field, Run, combined, runge_kutta_step
from cf_flowcore.tableau import Tableau

SMALLEST_FIRST_STEP = 1e-6


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
    norm: str = "rms",
    record: Callable[[Segment], None] | None = None,
) -> Run:
    """Steps from stops[0] to stops[-1], landing exactly on every stop.

    Keeps the state at each stop, or at each accepted step where `keep_steps`; `record` is shown every accepted step. A
    SolveError ends the run and is handed back in it, with the last accepted state.
    """
    t, t_1 = stops[0], stops[-1]
    direction = math.copysign(1.0, t_1 - t)
    longest = min(max_step or math.inf, abs(t_1 - t))
    times, states, accepted, rejected, failure = [t], [x], 0, 0, None
    size = NORMS[norm]
    k, ratios, previous = field(x, t), None, 1.0
    h = first_step or first_step_size(field, x, k, t, t_1, tableau, tolerance, size)
    try:
        for stop in stops[1:]:
            while t != stop:
                h = min(h, longest)
                _check_can_go_on(field, tableau, t, h, max_nfe, ratios)
                t_next = stop if abs(stop - t) <= h else t + direction * h
                x_next, ks = runge_kutta_step(field, tableau, x, t, t_next, k)
                ratios, factor = error_ratios(tableau, ks, x, x_next, tolerance)
                # reading it waits for the device: the one host read of a step
                error = abs((t_next - t) * factor) * float(size(ratios))
                if not math.isfinite(error):
                    _check_finite(tableau, t, t_next, ks)
                    error = math.inf  # the estimate overflowed, the field did not: a shorter step will do
                if error > 1.0:
                    rejected += 1
                    h = abs(t_next - t) * control.after_rejected(error, tableau.order)
                    continue
                accepted += 1
                h = abs(t_next - t) * control.after_accepted(error, previous, tableau.order)
                k = ks[-1] if tableau.first_same_as_last else field(x_next, t_next)
                if record is not None:
                    record(segment(tableau, t, t_next, x, x_next, ks, k))
                t, x, previous = t_next, x_next, error
                if keep_steps or t == stop:
                    times.append(t)
                    states.append(x)
    except SolveError as error:
        failure = error
        if times[-1] != t:
            times.append(t)
            states.append(x)
    return Run(times, states, accepted, rejected, failure)


@torch.no_grad()
def error_ratios(
    tableau: Tableau,
    ks: Sequence[Float[Tensor, "b *d"]],
    x: Float[Tensor, "b *d"],
    x_next: Float[Tensor, "b *d"],
    tolerance: Tolerance,
) -> tuple[Float[Tensor, "b *d"], float]:
    """sum_i e_i k_i / (atol + rtol max(|x|, |x_next|)), elementwise, as a tensor and the factor it still lacks"""
    total, factor = combined(tableau.error_terms, ks)
    largest = wide(x_next).abs().clamp_min_(x.abs())
    return total.div_(tolerance.scale(largest)), factor


@torch.no_grad()
def first_step_size(
    field: Field,
    x: Float[Tensor, "b *d"],
    k: Float[Tensor, "b *d"],
    t: float,
    t_1: float,
    tableau: Tableau,
    tolerance: Tolerance,
    size: Callable[[Tensor], Tensor] = rms,
) -> float:
    """|h| from the sizes of x, v and dv/dt   (Hairer, Norsett & Wanner, Solving ODEs I, II.4)

    One probe of the field, kept inside [t, t_1], and two host reads.
    """
    scale = tolerance.scale(wide(x).abs())
    d_0, d_1 = torch.stack([size(wide(x) / scale), size(wide(k) / scale)]).tolist()
    if not (math.isfinite(d_0) and math.isfinite(d_1)):
        return SMALLEST_FIRST_STEP  # a NaN here is the field's; a small step will meet it and name the sample
    h_0 = SMALLEST_FIRST_STEP if min(d_0, d_1) < 1e-5 else 0.01 * d_0 / d_1
    h_0 = min(h_0, abs(t_1 - t))

    t_probe = t + math.copysign(h_0, t_1 - t)
    k_probe = field(torch.add(x, k, alpha=t_probe - t), min(max(t_probe, min(t, t_1)), max(t, t_1)))
    d_2 = float(size((wide(k_probe) - k).div_(scale))) / h_0

    steepest = max(d_1, d_2)
    flat = steepest <= 1e-15  # v is zero all around
    h_1 = max(1e-3 * h_0, SMALLEST_FIRST_STEP) if flat else (0.01 / steepest) ** (1 / tableau.order)
    h = min(100.0 * h_0, h_1)
    return h if math.isfinite(h) and h > 0.0 else SMALLEST_FIRST_STEP


def _check_can_go_on(
    field: Field,
    tableau: Tableau,
    t: float,
    h: float,
    max_nfe: int,
    ratios: Float[Tensor, "b *d"] | None,
) -> None:
    """Raises where another step of size h at t is forbidden, naming the sample with the largest error."""
    out_of_calls = field.nfe + tableau.calls > max_nfe
    if not out_of_calls and t + h != t and t - h != t:
        return
    sample = None if ratios is None else int(ratios.reshape(len(ratios), -1).square().sum(dim=1).argmax())
    if out_of_calls:
        raise too_many_evaluations(field.nfe, max_nfe, t, sample)
    raise step_underflow(h, t, sample)


def _check_finite(tableau: Tableau, t: float, t_next: float, ks: Sequence[Float[Tensor, "b *d"]]) -> None:
    """Raises for the first stage with a NaN or an infinity, naming its time and sample."""
    for c, k in zip(tableau.c, ks, strict=True):
        bad = ~torch.isfinite(k.reshape(len(k), -1)).all(dim=1)
        if bad.any():
            raise non_finite_velocity(t + c * (t_next - t), int(bad.int().argmax()))
