"""What an explicit Runge-Kutta method is: a few rows of numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

Terms = tuple[tuple[int, float], ...]  # a weighted sum of stages: which, and its weight


@dataclass(frozen=True)
class Tableau:
    """One method: stage times `c`, rows `a` (strictly lower triangle), weights `b`, error weights `error`.

    dense: weights d of a quartic between the ends of a step (see `dense`); without, a cubic is used.
    a_terms, b_terms, error_terms: the same rows without their zeros, which is how the loops read them.
    """

    order: int
    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    error: tuple[float, ...] | None = None
    dense: tuple[float, ...] | None = None
    a_terms: tuple[Terms, ...] = field(init=False, repr=False, compare=False)
    b_terms: Terms = field(init=False, repr=False, compare=False)
    error_terms: Terms = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not len(self.a) == len(self.c) == len(self.b):
            raise ValueError(f"{len(self.c)} stages need as many rows a and weights b")
        for i, (c, row) in enumerate(zip(self.c, self.a, strict=True)):
            if len(row) != i or not math.isclose(sum(row), c, abs_tol=1e-14):
                raise ValueError(f"row {i} of a must hold {i} numbers that sum to c = {c}, got {row}")
        if self.error is not None and len(self.error) != len(self.b):
            raise ValueError(f"{len(self.b)} stages need as many error weights, got {len(self.error)}")
        if self.error is not None and not math.isclose(sum(self.error), 0.0, abs_tol=1e-14):
            raise ValueError(f"error weights compare two methods and must sum to 0, got {sum(self.error):g}")
        object.__setattr__(self, "a_terms", tuple(terms(row) for row in self.a))
        object.__setattr__(self, "b_terms", terms(self.b))
        object.__setattr__(self, "error_terms", terms(self.error or ()))

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


def terms(weights: Sequence[float]) -> Terms:
    """The weights that are not zero, each with its stage."""
    return tuple((stage, weight) for stage, weight in enumerate(weights) if weight != 0.0)
