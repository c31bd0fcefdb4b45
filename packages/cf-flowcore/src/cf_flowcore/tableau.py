"""What an explicit Runge-Kutta method is: a few rows of numbers."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Tableau:
    """One method: stage times `c`, rows `a` (strictly lower triangle), weights `b`, error weights `error`.

    dense: weights d of a quartic between the ends of a step (see `dense`); without, a cubic is used.
    """

    order: int
    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    error: tuple[float, ...] | None = None
    dense: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not len(self.a) == len(self.c) == len(self.b):
            raise ValueError(f"{len(self.c)} stages need as many rows a and weights b")
        for i, (c, row) in enumerate(zip(self.c, self.a, strict=True)):
            if len(row) != i or not math.isclose(sum(row), c, abs_tol=1e-14):
                raise ValueError(f"row {i} of a must hold {i} numbers that sum to c = {c}, got {row}")
        if self.error is not None and len(self.error) != len(self.b):
            raise ValueError(f"{len(self.b)} stages need as many error weights, got {len(self.error)}")

    @property
    def stages(self) -> int:
        """Evaluations of v in one step, the first included."""
        return len(self.b)

    @property
    def calls(self) -> int:
        """Evaluations of v in an adaptive step: its first stage is there already, the next step needs one."""
        return self.stages - 1 if self.first_same_as_last else self.stages

    @property
    def first_same_as_last(self) -> bool:
        """Whether the last stage is v at the step's end, hence the next step's first stage."""
        return self.c[-1] == 1.0 and self.b[-1] == 0.0 and self.a[-1] == self.b[:-1]
