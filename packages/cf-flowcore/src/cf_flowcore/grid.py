"""Time grids: Python floats, the ends exact."""

import math
import operator
from collections.abc import Sequence
from itertools import pairwise


def even_grid(steps: int, t_0: float, t_1: float) -> list[float]:
    """`steps` equal steps from t_0 to t_1: steps + 1 times."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    return [t_0 + (t_1 - t_0) * i / steps for i in range(steps)] + [t_1]


def checked_grid(grid: Sequence[float], t_0: float, t_1: float) -> list[float]:
    """The grid as floats, once it is seen to run from t_0 to t_1 strictly one way (ValueError if not)."""
    times = [float(t) for t in grid]
    if len(times) < 2 or not all(math.isfinite(t) for t in times):
        raise ValueError(f"a time grid needs at least two finite times, got {times}")
    if (times[0], times[-1]) != (t_0, t_1):
        raise ValueError(
            f"grid must run from t_0={t_0} to t_1={t_1}, got {times[0]} to {times[-1]}; "
            "pass its ends as t_0= and t_1="
        )
    rises, falls = (all(after(b, a) for a, b in pairwise(times)) for after in (operator.gt, operator.lt))
    if not (rises or falls):
        raise ValueError(
            f"time must move strictly one way, got {times}; to go from t=1 to t=0 pass t_0=1.0, t_1=0.0"
        )
    return times
