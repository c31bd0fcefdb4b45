"""ln p of a flow with a source of known density: the change of variables along the ODE   (Lipman et al. appendix C)

    ln p_1(x_1) = ln p_0(x_0) - integral over t from 0 to 1 of div v(x_t, t)

State and integral are solved together, as one ODE.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from cf_flowcore.divergence import Divergence, draw_probes, exact_divergence, hutchinson_divergence
from cf_flowcore.solve import solve
from cf_flowcore.velocity import Velocity

LogDensity = Callable[[Float[Tensor, "b *d"]], Float[Tensor, "b"]]


@dataclass(frozen=True)
class LogProb:
    """ln p of each sample in nats, at least float32, and what it took.

    x           the other end of the flow: x_0 of `log_prob`, x_1 of `sample_with_log_prob`
    log_p       (b,) ln p_1(x_1)
    probe_std   (b,) standard error of log_p due to Hutchinson's probes, estimated from their spread: needs two or more;
                0 for the exact divergence, NaN for a single probe
    nfe         calls of v, each with one backward pass per probe (exact: one per 64 dimensions)
    """

    x: Float[Tensor, "b *d"]
    log_p: Float[Tensor, "b"]
    probe_std: Float[Tensor, "b"]
    nfe: int


def standard_normal(x: Float[Tensor, "b *d"]) -> Float[Tensor, "b"]:
    """ln N(x; 0, I)"""
    flat = x.reshape(len(x), -1).to(torch.promote_types(x.dtype, torch.float32))
    return -0.5 * (flat.square().sum(1) + flat.shape[1] * math.log(2.0 * math.pi))


def log_prob(
    v: Velocity,
    x_1: Float[Tensor, "b *d"],
    *,
    divergence: str = "hutchinson",
    probes: int = 1,
    probe: str = "rademacher",
    generator: torch.Generator | None = None,
    log_p_0: LogDensity = standard_normal,
    t_0: float = 0.0,
    t_1: float = 1.0,
    method: str = "dopri5",
    steps: int | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    grad: str = "off",
) -> LogProb:
    """ln p_1(x_1) under the flow of v whose source has density `log_p_0`   (Lipman et al. eq. 33-35)

    divergence  "exact": d vector-Jacobian products a call; "hutchinson": one for each of `probes` (unbiased for ln p,
                not for p), drawn from `generator` once and kept
    probe       "rademacher" or "gaussian"
    t_0, t_1    where source and data are; t_1 = path.t_max for diffusion paths, whose velocity is infinite at 1
    grad        "direct": the result can be differentiated by x_1 and by the parameters of v

    `method`, `steps`, `rtol`, `atol` as in `solve`. VP and VE are not quite N(0, I) at t = 0, which is a bias; for VE
    pass a `log_p_0` of N(0, b(0)^2).
    """
    flow = _Augmented(v, x_1, divergence, probes, probe, generator, differentiable=grad == "direct")
    how = {"method": method, "steps": steps, "rtol": rtol, "atol": atol, "grad": grad}
    end = solve(flow, flow.start(), t_0=t_1, t_1=t_0, **how)
    x_0, integral = flow.split(end.x)  # of the divergence, from t_1 down to t_0: its sign is the right one
    return _result(x_0, log_p_0(x_0), integral, divergence, end.nfe)


def sample_with_log_prob(
    v: Velocity,
    x_0: Float[Tensor, "b *d"],
    *,
    divergence: str = "hutchinson",
    probes: int = 1,
    probe: str = "rademacher",
    generator: torch.Generator | None = None,
    log_p_0: LogDensity = standard_normal,
    t_0: float = 0.0,
    t_1: float = 1.0,
    method: str = "dopri5",
    steps: int | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    grad: str = "off",
) -> LogProb:
    """x_1 = the end of the flow from x_0, and ln p_1 of it, in one solve. Options as in `log_prob`."""
    flow = _Augmented(v, x_0, divergence, probes, probe, generator, differentiable=grad == "direct")
    how = {"method": method, "steps": steps, "rtol": rtol, "atol": atol, "grad": grad}
    end = solve(flow, flow.start(), t_0=t_0, t_1=t_1, **how)
    x_1, integral = flow.split(end.x)
    return _result(x_1, log_p_0(x_0), -integral, divergence, end.nfe)


class _Augmented:
    """The field of (x, integrals of the divergence), flattened to (b, d + p) in at least float32."""

    def __init__(
        self,
        v: Velocity,
        x: Float[Tensor, "b *d"],
        divergence: str,
        probes: int,
        probe: str,
        generator: torch.Generator | None,
        *,
        differentiable: bool,
    ) -> None:
        self.v, self.x, self.differentiable = v, x, differentiable
        self.d = x[0].numel()
        self.wide = torch.promote_types(x.dtype, torch.float32)
        self.divergence: Divergence
        if divergence == "exact":
            self.columns, self.divergence = 1, partial(exact_divergence, create_graph=differentiable)
        elif divergence == "hutchinson":
            if probes < 1:
                raise ValueError(f"probes must be at least 1, got {probes}")
            drawn = draw_probes(probes, x, probe, generator)
            self.columns, self.divergence = probes, hutchinson_divergence(drawn, create_graph=differentiable)
        else:
            raise ValueError(f"unknown divergence {divergence!r}; known: exact, hutchinson")

    def start(self) -> Float[Tensor, "b e"]:
        flat = self.x.reshape(len(self.x), -1).to(self.wide)
        return torch.cat([flat, flat.new_zeros(len(flat), self.columns)], 1)

    def split(self, y: Float[Tensor, "b e"]) -> tuple[Float[Tensor, "b *d"], Float[Tensor, "b p"]]:
        return y[:, : self.d].reshape(self.x.shape).to(self.x.dtype), y[:, self.d :]

    def __call__(self, y: Float[Tensor, "b e"], t: Float[Tensor, "b"]) -> Float[Tensor, "b e"]:
        with torch.enable_grad():
            x = self.split(y)[0]
            x = x if self.differentiable and x.requires_grad else x.detach().requires_grad_()
            velocity = self.v(x, t)
            div = self.divergence(velocity, x)
        out = torch.cat([velocity.reshape(len(y), -1).to(self.wide), div.to(self.wide)], 1)
        return out if self.differentiable or not out.requires_grad else out.detach()


def _result(
    x: Float[Tensor, "b *d"],
    log_p_0: Float[Tensor, "b"],
    change: Float[Tensor, "b p"],
    divergence: str,
    nfe: int,
) -> LogProb:
    """ln p_0 plus the change, averaged over the probes, with the standard error of that average."""
    count = change.shape[1]
    if divergence == "exact":
        error = torch.zeros_like(log_p_0)
    else:
        error = change.detach().std(1) / math.sqrt(count) if count > 1 else torch.full_like(log_p_0, math.nan)
    return LogProb(x, log_p_0 + change.mean(1), error, nfe)
