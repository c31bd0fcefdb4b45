"""Explicit Runge-Kutta methods as data.

    k_i = v(x + h sum_j a_ij k_j, t + c_i h),     x_next = x + h sum_i b_i k_i,     error = h sum_i e_i k_i

A method with error weights e is adaptive; the others take the steps they are given.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Tableau:
    """One method: stage times `c`, rows `a` (strictly lower triangle), weights `b`, error weights `error`."""

    order: int
    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    error: tuple[float, ...] | None = None

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
    def first_same_as_last(self) -> bool:
        """Whether the last stage is v at the step's end, hence the next step's first stage."""
        return self.c[-1] == 1.0 and self.b[-1] == 0.0 and self.a[-1] == self.b[:-1]


EULER = Tableau(order=1, c=(0.0,), a=((),), b=(1.0,))

MIDPOINT = Tableau(order=2, c=(0.0, 1 / 2), a=((), (1 / 2,)), b=(0.0, 1.0))

HEUN = Tableau(order=2, c=(0.0, 1.0), a=((), (1.0,)), b=(1 / 2, 1 / 2))

RK4 = Tableau(
    order=4,
    c=(0.0, 1 / 2, 1 / 2, 1.0),
    a=((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
    b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
)

_DOPRI5_C = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_DOPRI5_A = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_DOPRI5_B = (*_DOPRI5_A[-1], 0.0)

DOPRI5 = Tableau(
    # Dormand & Prince 1980: b minus their embedded 4th-order weights (as scipy's RK45)
    order=5,
    c=_DOPRI5_C,
    a=_DOPRI5_A,
    b=_DOPRI5_B,
    error=(71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
)

DOPRI5_SHAMPINE = Tableau(
    # Shampine 1986: another embedded 4th-order row (torchdiffeq's, with which the papers count NFE);
    # its estimate is smaller, so it takes fewer steps and errs more at the same tolerance
    order=5,
    c=_DOPRI5_C,
    a=_DOPRI5_A,
    b=_DOPRI5_B,
    error=(
        35 / 384 - 1951 / 21600,
        0.0,
        500 / 1113 - 22642 / 50085,
        125 / 192 - 451 / 720,
        -2187 / 6784 + 12231 / 42400,
        11 / 84 - 649 / 6300,
        -1 / 60,
    ),
)

TABLEAUS = {
    "euler": EULER,
    "midpoint": MIDPOINT,
    "heun": HEUN,
    "rk4": RK4,
    "dopri5": DOPRI5,
    "dopri5-shampine": DOPRI5_SHAMPINE,
}


def tableau(method: str) -> Tableau:
    """The method of this name; ValueError lists the known ones."""
    if method not in TABLEAUS:
        raise ValueError(f"unknown solver {method!r}; known: {', '.join(TABLEAUS)}")
    return TABLEAUS[method]
