"""Time grids: Python floats, the ends exact. Pass them to `solve` as grid=; it takes them as they are."""

import math
import operator
from collections.abc import Sequence
from itertools import pairwise

import torch

from cf_flowcore.path import Path
from cf_flowcore.times import shift


def even_grid(steps: int, t_0: float, t_1: float) -> list[float]:
    """`steps` equal steps from t_0 to t_1: steps + 1 times."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    return [t_0 + (t_1 - t_0) * i / steps for i in range(steps)] + [t_1]


def shifted_grid(steps: int, factor: float) -> list[float]:
    """`steps` steps from 0 to 1, shifted: for factor > 1 shorter near the source (see `shift`)."""
    even = torch.tensor(even_grid(steps, 0.0, 1.0), dtype=torch.float64)
    return [*shift(even, factor).tolist()[:-1], 1.0]


def karras_grid(
    steps: int, path: Path, *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> list[float]:
    """`steps` steps whose noise levels sigma = b / a are those of Karras et al. 2022, eq. 5, in the times of `path`

        sigma_i = (sigma_max^(1/rho) + i / (n - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho

    sigma_max gives way to pure source, t = 0, and the last step ends at path.t_max.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if not 0.0 < sigma_min < sigma_max < math.inf or not rho > 0.0:
        raise ValueError(
            f"karras_grid needs 0 < sigma_min < sigma_max and rho > 0, got {sigma_min}, {sigma_max}, {rho}"
        )
    i = torch.arange(1, steps, dtype=torch.float64) / max(steps - 1, 1)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigma = (high + i * (low - high)) ** rho
    return [0.0, *path.t_of(torch.ones_like(sigma), sigma).tolist(), path.t_max]


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
