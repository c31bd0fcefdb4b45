"""Carry samples along a velocity field: x' = v(x, t) from t_0 to t_1, in either direction."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cf_flowcore.adaptive import solve_adaptive
from cf_flowcore.control import PI_CONTROL, StepControl, Tolerance
from cf_flowcore.dense import Dense, Segment, segment
from cf_flowcore.grid import checked_grid, even_grid
from cf_flowcore.options import check_choice, check_method, check_positive
from cf_flowcore.per_sample import PerSampleRun, solve_per_sample
from cf_flowcore.solution import Solution
from cf_flowcore.step import Field, Run, runge_kutta_step
from cf_flowcore.tableau import Tableau
from cf_flowcore.tableaus import tableau
from cf_flowcore.velocity import Velocity


def solve(
    v: Velocity,
    x_0: Float[Tensor, "b *d"],
    *,
    t_0: float = 0.0,
    t_1: float = 1.0,
    method: str = "dopri5",
    steps: int | None = None,
    grid: Sequence[float] | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    per_sample: bool = False,
    norm: str = "rms",
    max_nfe: int = 10_000,
    save: str = "end",
    first_step: float | None = None,
    max_step: float | None = None,
    control: StepControl = PI_CONTROL,
    grad: str = "off",
    on_fail: str = "raise",
) -> Solution:
    """Solves x' = v(x, t), x(t_0) = x_0, for x(t_1). To go from data to source pass t_0=1.0, t_1=0.0.

    v(x, t) gets t as (b,), float32 (float64 for a float64 state), and is never called outside [t_0, t_1].

    Fixed methods (euler, midpoint, heun, rk4) take `steps` equal steps, or the steps of `grid`, and never
    wait for the device. Adaptive ones (bosh3, dopri5, dopri5-shampine, tsit5, dopri8) keep the RMS error of each step
    under atol + rtol |x|, start with `first_step` (default: estimated), never step further than `max_step`, land on
    every time of `grid` if there is one, and wait for the device once a step; rtol, atol, norm, max_nfe, control,
    per_sample and on_fail are theirs alone. `control`: PI_CONTROL or I_CONTROL (torchdiffeq's) of cf_flowcore.control.

    norm        "rms" of the whole batch's error, as the papers have it, or "max": of the worst sample's RMS
    per_sample  every sample takes adaptive steps of its own and leaves the batch when it has arrived: v sees fewer and
                fewer rows, and no sample's answer depends on the others. A failure ends that sample alone.
    save     "end"; "grid": also the states of the grid (adaptive without inner times: of every step); or "dense": the
             solution as a function of time, which keeps the states and slopes of every step
    grad     "off", or "direct": backpropagate through the steps (`solve_adjoint` does it without keeping them)
    on_fail  "raise" NonFiniteVelocity, StepUnderflow or TooManyEvaluations, or "return" the last state

    Raises ValueError for options that make no sense, naming them.
    """
    check_choice("save", save, ("end", "grid", "dense"))
    check_choice("grad", grad, ("off", "direct"))
    check_choice("on_fail", on_fail, ("raise", "return"))
    check_positive(first_step=first_step, max_step=max_step)
    if not x_0.is_floating_point():
        raise ValueError(f"x_0 must be floating point, got {x_0.dtype}; x_0.float() is")
    rule, field = tableau(method), Field(v, x_0)
    check_method(
        method,
        rule,
        steps=steps,
        grid=grid,
        first_step=first_step,
        max_step=max_step,
        per_sample=per_sample,
        norm=norm,
        save=save,
    )
    if grid is None:
        grid = [t_0, t_1] if steps is None else even_grid(steps, t_0, t_1)
    times = checked_grid(grid, t_0, t_1)

    how: dict[str, Any] = {
        "tolerance": Tolerance(rtol, atol),
        "control": control,
        "max_nfe": max_nfe,
        "first_step": first_step,
        "max_step": max_step,
    }
    segments: list[Segment] = []
    record = segments.append if save == "dense" else None
    with torch.set_grad_enabled(grad == "direct" and torch.is_grad_enabled()):
        if per_sample:
            own = solve_per_sample(field, x_0, times, rule, keep=save == "grid", **how)
            return _per_sample_solution(own, field, times, on_fail)
        if rule.error is None:
            run = solve_fixed(field, x_0, times, rule, keep=save == "grid", record=record)
        else:
            keep_steps = save == "grid" and len(times) == 2
            run = solve_adaptive(
                field, x_0, times, rule, keep_steps=keep_steps, record=record, norm=norm, **how
            )
        trajectory = torch.stack(run.states) if save == "grid" else None
    if run.failure is not None and on_fail == "raise":
        raise run.failure
    return Solution(
        x=run.states[-1],
        t=torch.tensor(run.times if save == "grid" else run.times[-1:], dtype=torch.float64),
        trajectory=trajectory,
        nfe=field.nfe,
        rows=field.rows,
        accepted=run.accepted,
        rejected=run.rejected,
        dense=Dense(tuple(segments)) if segments else None,
        failure=run.failure,
    )


def _per_sample_solution(run: PerSampleRun, field: Field, times: Sequence[float], on_fail: str) -> Solution:
    """The run as a Solution; its failure raised, if that is asked for."""
    if run.failure is not None and on_fail == "raise":
        raise run.failure
    kept = times if run.trajectory is not None else times[-1:]
    return Solution(
        x=run.x,
        t=torch.tensor(kept, dtype=torch.float64),
        trajectory=run.trajectory,
        nfe=field.nfe,
        rows=field.rows,
        accepted=run.accepted,
        rejected=run.rejected,
        reached=run.reached,
        failure=run.failure,
    )


def solve_fixed(
    field: Field,
    x: Float[Tensor, "b *d"],
    times: Sequence[float],
    rule: Tableau,
    *,
    keep: bool,
    record: Callable[[Segment], None] | None = None,
) -> Run:
    """One step from each time to the next; nothing is read back from the device.

    `record` is shown every step, at the price of one more call at the end: a step's last slope is the next one's first.
    """
    states, k = [x], None
    for t, t_next in pairwise(times):
        x_next, ks = runge_kutta_step(field, rule, x, t, t_next, k)
        if record is not None:
            k = field(x_next, t_next)
            record(segment(rule, t, t_next, x, x_next, ks, k))
        x = x_next
        states = [*states, x] if keep else [x]
    return Run(list(times), states, accepted=len(times) - 1, rejected=0)
