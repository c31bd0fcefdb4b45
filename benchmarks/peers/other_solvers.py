"""The peers' solvers behind one signature: (v, x) -> the state at t = 1. Those not installed are left out, by name.

flow_matching's licence forbids what we would do with it, so it is not among them.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from cf_flowcore import Velocity
from torch import Tensor

Solver = Callable[[Velocity, Tensor], Tensor]
STEPS = 20
TOLERANCE = 1e-5


def peers() -> tuple[dict[str, Solver], list[str]]:
    """What is installed, and the names of what is not."""
    rows: dict[str, Solver] = {}
    missing = []
    for package, make in {
        "torchdiffeq": of_torchdiffeq,
        "torchode": of_torchode,
        "torchdyn": of_torchdyn,
        "diffusers": of_diffusers,
    }.items():
        if find_spec(package) is None:
            missing.append(package)
        else:
            rows |= make()
    return rows, missing


def of_torchdiffeq() -> dict[str, Solver]:
    """Its fixed methods by step_size, and dopri5 as it comes and kept inside [0, 1]."""
    even: dict[str, Any] = {"step_size": 1 / STEPS}
    return {
        "torchdiffeq euler": _torchdiffeq("euler", even),
        "torchdiffeq midpoint": _torchdiffeq("midpoint", even),
        "torchdiffeq heun": _torchdiffeq("heun2", even),
        "torchdiffeq rk4 (3/8)": _torchdiffeq("rk4", even),
        "torchdiffeq dopri5": _torchdiffeq("dopri5", {}),
        "torchdiffeq dopri5, clamped": _torchdiffeq("dopri5", {"step_t": torch.tensor([1.0])}),
    }


def _torchdiffeq(method: str, options: dict[str, Any]) -> Solver:
    import torchdiffeq

    @torch.no_grad()
    def run(v: Velocity, x: Tensor) -> Tensor:
        def time_first(t: Tensor, x: Tensor) -> Tensor:
            return v(x, t.to(torch.float32).expand(len(x)))

        ends = torch.tensor([0.0, 1.0])
        states = torchdiffeq.odeint(
            time_first, x, ends, rtol=TOLERANCE, atol=TOLERANCE, method=method, options=options
        )
        assert isinstance(states, Tensor)  # a tuple only where the state is one
        return states[-1]

    return run


def of_torchode() -> dict[str, Solver]:
    """Steps of each sample's own; no row is ever dropped. States are (b, d) only."""
    return {"torchode dopri5": _torchode("Dopri5"), "torchode tsit5": _torchode("Tsit5")}


def _torchode(method: str) -> Solver:
    import torchode

    @torch.no_grad()
    def run(v: Velocity, x: Tensor) -> Tensor:
        term = torchode.ODETerm(lambda t, y: v(y.reshape(x.shape), t).flatten(1))
        control = torchode.IntegralController(atol=TOLERANCE, rtol=TOLERANCE, term=term)
        solver = torchode.AutoDiffAdjoint(getattr(torchode, method)(term=term), control)
        times = torch.tensor([0.0, 1.0]).expand(len(x), 2)
        return solver.solve(torchode.InitialValueProblem(y0=x.flatten(1), t_eval=times)).ys[:, -1]

    return run


def of_torchdyn() -> dict[str, Solver]:
    """What torchcfm's examples sample with."""
    return {
        "torchdyn (torchcfm) euler": _torchdyn("euler"),
        "torchdyn (torchcfm) dopri5": _torchdyn("dopri5"),
    }


def _torchdyn(method: str) -> Solver:
    from torchdyn.numerics.odeint import odeint

    @torch.no_grad()
    def run(v: Velocity, x: Tensor) -> Tensor:
        span = torch.linspace(0, 1, STEPS + 1) if method == "euler" else torch.tensor([0.0, 1.0])

        def time_first(t: Tensor, x: Tensor, args: object = None) -> Tensor:
            return v(x, t.to(torch.float32).expand(len(x)))

        return odeint(time_first, x, span, solver=method, atol=TOLERANCE, rtol=TOLERANCE)[1][-1]

    return run


def of_diffusers() -> dict[str, Solver]:
    """The loop of its pipelines: time runs from 1000 down to 0 and the model gives noise - data."""
    import numpy as np
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler()

    @torch.no_grad()
    def run(v: Velocity, x: Tensor) -> Tensor:
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / STEPS, STEPS).tolist())
        for time in scheduler.timesteps:
            t = (1 - time / 1000).expand(len(x))
            x = scheduler.step(-v(x, t), time, x, return_dict=False)[0]
        return x

    return {"diffusers Euler loop": run}
