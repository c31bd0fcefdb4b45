"""What a solve hands back."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from cf_flowcore.dense import Dense
from cf_flowcore.errors import SolveError


@dataclass(frozen=True)
class Solution:
    """The end of a solve, and what it took.

    x           the state at t[-1]
    t           (k,) the times of `trajectory`, or the one of `x`; float64 on the CPU, so reading never waits
    trajectory  (k, b, *d) the states at `t`, x_0 first, where save="grid"
    nfe         calls of v, rejected steps and the first-step probe included
    rows        samples that v was evaluated for, over all calls: b nfe, or less with per_sample=True
    accepted, rejected   steps; (b,) of them with per_sample=True; None from `solve_torchdiffeq`, which is not told
    reached     (b,) the time at which each sample stands, t[-1] where all went well; only with per_sample=True
    dense       the state at any times between the ends: dense([0.1, 0.25]) is (2, b, *d), where save="dense"
    failure     why an adaptive solve stopped short (only with on_fail="return"), else None; per_sample: the first cause
    """

    x: Float[Tensor, "b *d"]
    t: Float[Tensor, "k"]
    trajectory: Float[Tensor, "k b *d"] | None
    nfe: int
    rows: int
    accepted: int | Int[Tensor, "b"] | None
    rejected: int | Int[Tensor, "b"] | None
    reached: Float[Tensor, "b"] | None = None
    dense: Dense | None = None
    failure: SolveError | None = None

    @property
    def status(self) -> str:
        """ "ok", or the name of the failure: NonFiniteVelocity, StepUnderflow, TooManyEvaluations."""
        return "ok" if self.failure is None else type(self.failure).__name__

    @property
    def ok(self) -> bool:
        """Whether t_1 was reached. Fixed methods always reach it; they do not look at the values."""
        return self.failure is None
