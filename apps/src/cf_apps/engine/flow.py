"""The flow that all tasks share: its loss between paired x_0 and x_1, and the way from x_0 to x_1."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from cf_flowcore import (
    CondOT,
    LogitNormal,
    Mixture,
    Power,
    Solution,
    SolveError,
    Stratified,
    Uniform,
    autoguidance,
    classifier_free,
    scale_losses,
    solve,
)
from cf_flowcore.multiscale import weighted_sum
from cf_flowcore.tableaus import TABLEAUS
from jaxtyping import Bool, Float
from torch import Tensor

from cf_apps.engine.checks import require_count, require_known
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.precision import autocast
from cf_apps.engine.ranks.draws import draws_of
from cf_apps.engine.ranks.spread import by_rows

TIMES = {
    # name          density of t while training
    "uniform": Uniform(),  # the paper's "vanilla flow matching"
    "logit_normal": LogitNormal(),  # the public code's
    "early": Stratified(Mixture(Power(3.0), Uniform(), 0.7)),  # which image is decided near t = 0
}
T_BINS = 5
ADAPTIVE = tuple(name for name, rule in TABLEAUS.items() if rule.error is not None)


@runtime_checkable
class Backbone(Protocol):
    """A velocity network: DiMR, DiT, or anything that answers the same two calls."""

    def __call__(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, "b"], is_null: Bool[Tensor, "b"] | None = None
    ) -> Float[Tensor, "b k h w"]:
        """v(x_t, t)"""
        ...

    def scales(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, "b"], is_null: Bool[Tensor, "b"] | None = None
    ) -> tuple[Tensor, ...]:
        """The velocity at every scale, low to high; the last is v."""
        ...


@dataclass(frozen=True)
class FlowConfig:
    """How the flow is trained.

    null_rate: the share of samples that train the indicator, whose targets are other samples' (CrossFlow sec. 4.3).
    times: the density of t, one of `TIMES`. scale_weights: of the backbone's stages in L_FM, low to high; None is
    DiMR's halving. DiMR's targets k avgpool_k(v) amplify smooth content by k, its loss by k^2: with a large patch
    (k = 8) the low stages can make up most of the sum; weights near 1 / k^2 even that out.
    """

    null_rate: float = 0.1
    times: str = "uniform"
    sigma_min: float = 1e-5
    scale_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        require_known("times", self.times, TIMES)
        if not 0.0 <= self.null_rate < 1.0:
            raise ConfigError(f"null_rate must lie in [0, 1), got {self.null_rate}; CrossFlow uses 0.1")


@dataclass(frozen=True)
class FlowLoss:
    """loss: L_FM over all scales. stats: the last scale's error, whole and in fifths of t."""

    loss: Float[Tensor, ""]
    stats: dict[str, Tensor]


def flow_loss(
    backbone: Backbone,
    x_0: Float[Tensor, "b c h w"],
    x_1: Float[Tensor, "b c h w"],
    config: FlowConfig,
    generator: torch.Generator,
    known: Float[Tensor, "b 1 h w"] | None = None,
) -> FlowLoss:
    """L_FM = E || v(x_t, t) - (x_1 - (1 - sigma_min) x_0) ||^2 (CrossFlow eq. 1, 2), summed over the scales.

    Its gradient reaches what made x_0 through x_t and through the target: the source is learned.

    known: 1 where x_1 is data, 0 where it was filled in and must not be learned (depth without a reading).
    """
    path, draws = CondOT(config.sigma_min), draws_of(generator)
    is_null = draws.is_null(config.null_rate, x_1)
    if known is None:
        target = draws.null_targets(x_1, is_null)
    else:  # a null sample's target comes with its own holes
        both = draws.null_targets(torch.cat([x_1, known], 1), is_null)
        target, known = both.split([x_1.shape[1], 1], 1)
    t = draws.times(TIMES[config.times], x_1)
    x_t, v_t = path.x_t(x_0, target, t), path.v(x_0, target, t)
    per_scale = scale_losses(backbone.scales(x_t, t, is_null), v_t, known)  # (s, b), low to high
    loss = weighted_sum(per_scale, config.scale_weights).mean()
    stats = {"flow_full": per_scale[-1].mean().detach(), **by_time("flow", per_scale[-1].detach(), t)}
    return FlowLoss(loss, stats)


def by_time(name: str, loss: Float[Tensor, "b"], t: Float[Tensor, "b"]) -> dict[str, Tensor]:
    """Mean loss in each fifth of t; NaN where the batch has no such t. The first fifth decides the image."""
    place = (t * T_BINS).long().clamp(max=T_BINS - 1)
    return {f"{name}_t{k}": loss[place == k].mean() for k in range(T_BINS)}


@dataclass(frozen=True)
class SampleConfig:
    """How samples are drawn. scale 1 is unguided; `steps` is ignored by adaptive solvers."""

    scale: float = 3.0
    steps: int = 25
    solver: str = "euler"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        require_known("solver", self.solver, TABLEAUS)
        require_count("steps", self.steps, 1)
        if not abs(self.scale) < float("inf"):
            raise ConfigError(f"scale must be a finite number, got {self.scale}; 1 is unguided")
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(
                f"temperature must be zero or more, got {self.temperature}; 1 is what training saw"
            )


@torch.no_grad()
def carry(
    backbone: Callable[..., Tensor],
    x_0: Float[Tensor, "b c h w"],
    how: SampleConfig,
    precision: str = "fp32",
    weak: Callable[..., Tensor] | None = None,
    *,
    bound: bool = False,
) -> Solution:
    """Carry x_0 to x_1, guided by the indicator (CrossFlow eq. 3), or by a `weak` velocity (autoguidance).

    backbone, weak: (x, t, is_null) -> v. bound: they hold conditions of these b samples, row by row, so that every
    call must be of all b rows; else adaptive solvers go at each sample's own pace, and guidance is one call of 2b.
    Within `spread_over` the ranks carry some of the rows each, unless `bound`. Raises ConfigError where the solver
    cannot.
    """
    if bound:
        return _carried(backbone, x_0, how, precision, weak, bound=True)
    return by_rows(x_0, lambda rows: _carried(backbone, rows, how, precision, weak, bound=False))


def _carried(
    backbone: Callable[..., Tensor],
    x_0: Float[Tensor, "b c h w"],
    how: SampleConfig,
    precision: str,
    weak: Callable[..., Tensor] | None,
    *,
    bound: bool,
) -> Solution:
    v = _in_precision(backbone, precision)
    steps = None if how.solver in ADAPTIVE else how.steps
    try:
        if weak is None:
            guided = classifier_free(v, how.scale, batched=not bound)
        else:
            guided = autoguidance(_conditional(v), _conditional(_in_precision(weak, precision)), how.scale)
        # each sample by its own error, so that it is the same in whatever batch
        per_sample = how.solver in ADAPTIVE and not bound
        return solve(guided, x_0, method=how.solver, steps=steps, per_sample=per_sample)
    except (ValueError, SolveError) as error:
        raise ConfigError(str(error)) from error


def _in_precision(backbone: Callable[..., Tensor], precision: str) -> Callable[..., Tensor]:
    def v(x: Tensor, t: Tensor, is_null: Tensor) -> Tensor:
        with autocast(x.device, precision):
            return backbone(x, t, is_null)

    return v


def _conditional(v: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda x, t: v(x, t, torch.zeros_like(t, dtype=torch.bool))
