"""Maximum mean discrepancy (Gretton et al. 2012) in blocks, in float64: what KID and CMMD are made of."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

Kernel = Callable[[Tensor, Tensor], Tensor]
BLOCK = 1000  # rows at a time: a block of kernel values is 8 MB


def cubic(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """k(x, y) = (x . y / d + 1)^3   (Binkowski et al. 2018, sec. 4)"""
    return (x @ y.T / x.shape[1] + 1) ** 3


def gaussian(sigma: float) -> Kernel:
    """k(x, y) = exp(-|x - y|^2 / (2 sigma^2))"""

    def kernel(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
        squares = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T
        return (squares.clamp(min=0) / (-2 * sigma**2)).exp()

    return kernel


def unbiased_mmd2(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], kernel: Kernel) -> float:
    """sum_{i != j} k(x_i, x_j) / (n (n - 1)) + the same of y - 2 mean k(x_i, y_j); may fall below 0."""
    n, m = len(x), len(y)
    within_x = (_total(x, x, kernel) - _diagonal(x, kernel)) / (n * (n - 1))
    within_y = (_total(y, y, kernel) - _diagonal(y, kernel)) / (m * (m - 1))
    return within_x + within_y - 2 * _total(x, y, kernel) / (n * m)


def biased_mmd2(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], kernel: Kernel) -> float:
    """mean k(x_i, x_j) + mean k(y_i, y_j) - 2 mean k(x_i, y_j), the V-statistic; never below 0 but for rounding."""
    n, m = len(x), len(y)
    within = _total(x, x, kernel) / n**2 + _total(y, y, kernel) / m**2
    return within - 2 * _total(x, y, kernel) / (n * m)


def _total(x: Tensor, y: Tensor, kernel: Kernel) -> float:
    return sum(float(kernel(a, b).sum()) for a in x.split(BLOCK) for b in y.split(BLOCK))


def _diagonal(x: Tensor, kernel: Kernel) -> float:
    return sum(float(kernel(a, a).diagonal().sum()) for a in x.split(BLOCK))
