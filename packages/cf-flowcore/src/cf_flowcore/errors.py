"""How an adaptive solve can fail: three causes, three errors."""


class SolveError(RuntimeError):
    """An adaptive solve could not reach t_1: it stopped at `t`, for the sake of `sample` (None: unknown)."""

    def __init__(self, message: str, *, t: float, sample: int | None) -> None:
        super().__init__(message)
        self.t = t
        self.sample = sample


class NonFiniteVelocity(SolveError):
    """v returned NaN or infinity."""


class StepUnderflow(SolveError):
    """The step the tolerance asks for is too small to move t: the field jumps, or the tolerance is tiny."""


class TooManyEvaluations(SolveError):
    """The next step would pass max_nfe."""


def non_finite_velocity(t: float, sample: int) -> NonFiniteVelocity:
    return NonFiniteVelocity(
        f"v is not finite for sample {sample} at t={t:.6g}; look at the weights of the model "
        "and at x_0, or limit the step with max_step",
        t=t,
        sample=sample,
    )


def step_underflow(h: float, t: float, sample: int | None) -> StepUnderflow:
    return StepUnderflow(
        f"the step fell to {h:.3g} at t={t:.6g}; the largest error is in sample {sample}; the field jumps there, or "
        "the tolerance is below what its precision allows: loosen rtol and atol, or use float64",
        t=t,
        sample=sample,
    )


def too_many_evaluations(nfe: int, max_nfe: int, t: float, sample: int | None) -> TooManyEvaluations:
    return TooManyEvaluations(
        f"v was evaluated {nfe} times (max_nfe={max_nfe}) at t={t:.6g}; the largest error is in sample {sample}; "
        "loosen rtol and atol, raise max_nfe, or take a fixed method with steps=",
        t=t,
        sample=sample,
    )
