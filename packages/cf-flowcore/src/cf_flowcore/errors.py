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
