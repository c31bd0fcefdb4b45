"""Adaptive steps of every sample's own: a hard one shortens nobody else's, and no answer depends on the batch.

Samples that have arrived leave the batch, so that v is only asked for rows that still need it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cf_flowcore.adaptive import SMALLEST_FIRST_STEP, error_ratios
from cf_flowcore.control import StepControl, Tolerance, rms_of_each, wide
from cf_flowcore.errors import SolveError, non_finite_velocity, step_underflow, too_many_evaluations
from cf_flowcore.path import expand_like
from cf_flowcore.step import Field, combined
from cf_flowcore.tableau import Tableau, Terms


@dataclass(frozen=True)
class PerSampleRun:
    """Where each sample ended and when, its steps, its states at the stops, and the first failure if there was one."""

    x: Float[Tensor, "b *d"]
    reached: Float[Tensor, "b"]
    accepted: Int[Tensor, "b"]
    rejected: Int[Tensor, "b"]
    trajectory: Float[Tensor, "k b *d"] | None
    failure: SolveError | None


@dataclass(frozen=True)
class _Way:
    """Where all samples go and by which rules."""

    times: Float[Tensor, "s"]
    direction: float
    longest: float | None
    tableau: Tableau
    tolerance: Tolerance
    control: StepControl
    inner: Float[Tensor, "m 1"]  # the tableau's c after the first that are not 1


@dataclass
class _Rows:
    """The samples still on their way: one row each."""

    row: Int[Tensor, "n"]  # its place in the batch
    x: Float[Tensor, "n *d"]
    k: Float[Tensor, "n *d"]  # v(x, t)
    t: Float[Tensor, "n"]
    h: Float[Tensor, "n"]  # length of the next step
    previous: Float[Tensor, "n"]  # error of the last accepted step
    target: Float[Tensor, "n"]  # the time of the next stop
    stop: Int[Tensor, "n"]  # which one it is
    accepted: Int[Tensor, "n"]

    def at(self, place: Int[Tensor, "m"]) -> "_Rows":
        return _Rows(*(getattr(self, name)[place] for name in self.__dataclass_fields__))

    def ended(self, place: Int[Tensor, "m"] | slice, steps: int) -> "_Ended":
        return _Ended(*(it[place] for it in (self.row, self.x, self.t, self.accepted)), steps)


@dataclass(frozen=True)
class _Ended:
    """Samples that have left the batch, after trying so many steps."""

    row: Int[Tensor, "m"]
    x: Float[Tensor, "m *d"]
    t: Float[Tensor, "m"]
    accepted: Int[Tensor, "m"]
    steps: int


def solve_per_sample(
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
    keep: bool,
) -> PerSampleRun:
    """Every sample from stops[0] to stops[-1], landing exactly on every stop. One host read a step.

    A sample that fails stays where it was and leaves the batch; the others go on.
    """
    direction = math.copysign(1.0, stops[-1] - stops[0])
    times = torch.tensor(stops, dtype=_time_dtype(x), device=x.device)
    inner = times.new_tensor([[c] for c in tableau.c[1:] if c != 1.0])
    way = _Way(times, direction, max_step, tableau, tolerance, control, inner)
    rows = _first_rows(field, x, times, first_step, tableau, tolerance)
    ended: list[_Ended] = []
    steps, failure = 0, None
    states = x.new_zeros(len(stops), *x.shape) if keep else None
    if states is not None:
        states[0] = x.detach()
    while len(rows.row):
        if field.nfe + tableau.calls > max_nfe:
            worst = int(rows.h.argmin())
            failure = failure or too_many_evaluations(
                field.nfe, max_nfe, float(rows.t[worst]), int(rows.row[worst])
            )
            ended.append(rows.ended(slice(None), steps))
            break
        rows, ks, landed = _step(field, rows, way)
        steps += 1
        stuck = (torch.add(rows.t, rows.h, alpha=direction) == rows.t) > landed  # and not landed
        any_landed, any_stuck = torch.stack([landed, stuck]).any(1).tolist()  # the one host read of a step
        if any_stuck:
            failure = failure or _explained(rows, ks, stuck, direction)
        if any_landed and states is not None:
            hit = landed.nonzero()[:, 0]
            states = states.index_put((rows.stop[hit], rows.row[hit]), rows.x[hit])
        if any_landed or any_stuck:
            rows.stop = rows.stop + landed
            leaving = (rows.stop == len(stops)) | stuck
            ended.append(rows.ended(leaving.nonzero()[:, 0], steps))
            rows = rows.at((~leaving).nonzero()[:, 0])
            rows.target = times[rows.stop]
    return _gathered(ended or [rows.ended(slice(None), steps)], states, failure)


def _step(field: Field, rows: _Rows, way: _Way) -> tuple[_Rows, list[Tensor], Tensor]:
    """One attempt of every row; also its stages, and which rows have just landed on their next stop."""
    tableau, h = way.tableau, rows.h if way.longest is None else rows.h.clamp(max=way.longest)
    arrives = h >= (rows.target - rows.t).abs()
    t_next = torch.where(arrives, rows.target, torch.add(rows.t, h, alpha=way.direction))
    dt = t_next - rows.t
    step = expand_like(dt.to(wide(rows.x).dtype), rows.x)

    ks, x_next = [rows.k], rows.x
    stage_times = _stage_times(field, way, rows.t, dt, t_next)
    for stage_t, terms in zip(stage_times, tableau.a_terms[1:], strict=True):
        x_next = _advanced(rows.x, step, terms, ks)
        ks.append(field(x_next, stage_t))
    if not tableau.first_same_as_last:
        x_next = _advanced(rows.x, step, tableau.b_terms, ks)

    error = _errors(tableau, step, ks, rows.x, x_next, way.tolerance).to(rows.t.dtype)
    good = error <= 1.0  # no NaN is
    keep = expand_like(good, rows.x)
    x, t = torch.where(keep, x_next, rows.x), torch.where(good, t_next, rows.t)
    k = torch.where(keep, ks[-1], rows.k) if tableau.first_same_as_last else field(x, t)
    moved = _Rows(
        rows.row,
        x,
        k,
        t,
        dt.abs() * way.control.factors(error, good, rows.previous, tableau.order),
        torch.where(good, error, rows.previous),
        rows.target,
        rows.stop,
        rows.accepted + good,
    )
    return moved, ks, good & (t == rows.target)


def _stage_times(
    field: Field, way: _Way, t: Float[Tensor, "n"], dt: Float[Tensor, "n"], t_next: Float[Tensor, "n"]
) -> list[Float[Tensor, "n"]]:
    """When each stage after the first asks the field, for every row: t + c dt, exactly t_next where c is 1."""
    inner = iter(torch.addcmul(t, way.inner, dt).to(field.time_dtype).unbind())
    end = t_next.to(field.time_dtype)
    return [end if c == 1.0 else next(inner) for c in way.tableau.c[1:]]


def _advanced(
    x: Float[Tensor, "n *d"], step: Float[Tensor, "n *ones"], terms: Terms, ks: Sequence[Tensor]
) -> Float[Tensor, "n *d"]:
    """x + h sum_j w_j k_j with each row's own h"""
    total, factor = combined(terms, ks)
    moved = torch.addcmul(wide(x), step, total, value=factor)
    return moved if moved.dtype == x.dtype else moved.to(x.dtype)


@torch.no_grad()
def _errors(
    tableau: Tableau,
    step: Float[Tensor, "n *ones"],
    ks: Sequence[Float[Tensor, "n *d"]],
    x: Float[Tensor, "n *d"],
    x_next: Float[Tensor, "n *d"],
    tolerance: Tolerance,
) -> Float[Tensor, "n"]:
    """Each row's RMS of h sum_i e_i k_i / (atol + rtol max(|x|, |x_next|))."""
    ratios, factor = error_ratios(tableau, ks, x, x_next, tolerance)
    return rms_of_each(ratios.mul_(step), abs(factor))


def _first_rows(
    field: Field,
    x: Float[Tensor, "b *d"],
    times: Float[Tensor, "s"],
    first_step: float | None,
    tableau: Tableau,
    tolerance: Tolerance,
) -> _Rows:
    b = len(x)
    t = times[0].expand(b)
    k = field(x, t)
    h = torch.full_like(t, first_step) if first_step else _first_steps(field, x, k, times, tableau, tolerance)
    row, zeros = torch.arange(b, device=x.device), torch.zeros(b, dtype=torch.int64, device=x.device)
    return _Rows(row, x, k, t, h, torch.ones_like(t), times[1].expand(b), zeros + 1, zeros)


@torch.no_grad()
def _first_steps(
    field: Field,
    x: Float[Tensor, "b *d"],
    k: Float[Tensor, "b *d"],
    times: Float[Tensor, "s"],
    tableau: Tableau,
    tolerance: Tolerance,
) -> Float[Tensor, "b"]:
    """|h| of every sample from the sizes of its x, v and dv/dt, as `adaptive.first_step_size` does for a batch."""
    span = times[-1] - times[0]
    scale = tolerance.scale(wide(x).abs())
    d_0, d_1 = rms_of_each(wide(x) / scale), rms_of_each(wide(k) / scale)
    h_0 = torch.where((d_0 < 1e-5) | (d_1 < 1e-5), SMALLEST_FIRST_STEP, 0.01 * d_0 / d_1)
    h_0 = torch.minimum(h_0.to(times.dtype), span.abs())
    probe = (x + expand_like((h_0 * span.sign()).to(wide(x).dtype), x) * k).to(x.dtype)
    d_2 = rms_of_each(wide(field(probe, times[0] + h_0 * span.sign()) - k) / scale) / h_0
    steepest = torch.maximum(d_1, d_2).to(times.dtype)
    h_1 = torch.where(
        steepest <= 1e-15,
        (1e-3 * h_0).clamp(min=SMALLEST_FIRST_STEP),
        (0.01 / steepest) ** (1 / tableau.order),
    )
    h = torch.minimum(100.0 * h_0, h_1)
    # a NaN is the field's; a small step will meet it
    return torch.where(torch.isfinite(h) & (h > 0.0), h, SMALLEST_FIRST_STEP)


def _explained(rows: _Rows, ks: list[Tensor], stuck: Tensor, direction: float) -> SolveError:
    """Why the first of the stuck rows is: its field is not finite there, or its step has become nothing."""
    place = int(stuck.int().argmax())
    t, h, sample = float(rows.t[place]), float(rows.h[place]), int(rows.row[place])
    if all(bool(torch.isfinite(k[place]).all()) for k in ks):
        return step_underflow(direction * h, t, sample)
    return non_finite_velocity(t, sample)


def _gathered(
    ended: list[_Ended], states: Float[Tensor, "k b *d"] | None, failure: SolveError | None
) -> PerSampleRun:
    """All rows in the order of the batch."""
    order = torch.cat([rows.row for rows in ended]).argsort()
    x, t, accepted = (
        torch.cat([getattr(rows, name) for rows in ended])[order] for name in ("x", "t", "accepted")
    )
    tried = torch.cat([torch.full_like(rows.accepted, rows.steps) for rows in ended])[order]
    return PerSampleRun(x, t, accepted, tried - accepted, states, failure)


def _time_dtype(x: Tensor) -> torch.dtype:
    """float64, where the device has it."""
    return torch.float32 if x.device.type == "mps" else torch.float64
