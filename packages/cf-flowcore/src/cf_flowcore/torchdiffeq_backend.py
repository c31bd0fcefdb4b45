"""The same solve by torchdiffeq, for its methods and to compare with it. Needs the extra `torchdiffeq`."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cf_flowcore.grid import checked_grid, even_grid
from cf_flowcore.options import check_choice, check_fixed
from cf_flowcore.solution import Solution
from cf_flowcore.step import Field
from cf_flowcore.velocity import Velocity

FIXED = ("euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "implicit_adams", "fixed_adams")


def solve_torchdiffeq(
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
    save: str = "end",
    grad: str = "off",
    options: Mapping[str, Any] | None = None,
) -> Solution:
    """`solve`, by torchdiffeq.odeint. method, rtol, atol, options: torchdiffeq's own ("rk4" is its 3/8 rule).

    Fixed methods need steps= or grid=; v gets t as (b,) and its calls are counted, as in `solve`. torchdiffeq does not
    promise what `solve` does: adaptive methods may call v outside [t_0, t_1] (dopri5 does not with
    options={"step_t": torch.tensor([t_1])}), wait for the device many times a step and fail with an AssertionError.
    `accepted` and `rejected` are not told: None.

    Raises ModuleNotFoundError without torchdiffeq, ValueError for options that make no sense.
    """
    try:
        import torchdiffeq
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            "solve_torchdiffeq needs torchdiffeq: pip install 'cf-flowcore[torchdiffeq]'"
        ) from missing
    check_choice("save", save, ("end", "grid"))
    check_choice("grad", grad, ("off", "direct"))
    if method in FIXED:
        check_fixed(method, steps, grid, None, None)
    elif steps is not None:
        raise ValueError(f"{method} chooses its steps: instead of steps={steps} pass rtol, atol or grid=")
    if grid is None:
        grid = [t_0, t_1] if steps is None else even_grid(steps, t_0, t_1)
    times = checked_grid(grid, t_0, t_1)
    field = Field(v, x_0)
    with torch.set_grad_enabled(grad == "direct" and torch.is_grad_enabled()):
        states = torchdiffeq.odeint(
            lambda t, x: field(x, t),
            x_0,
            torch.tensor(
                times, dtype=torch.float64 if x_0.device.type != "mps" else torch.float32, device=x_0.device
            ),
            rtol=rtol,
            atol=atol,
            method=method,
            options=dict(options or {}),
        )
    assert isinstance(states, Tensor)  # a tuple only where the state is one
    return Solution(
        x=states[-1],
        t=torch.tensor(times if save == "grid" else times[-1:], dtype=torch.float64),
        trajectory=states if save == "grid" else None,
        nfe=field.nfe,
        rows=field.rows,
        accepted=None,
        rejected=None,
    )
