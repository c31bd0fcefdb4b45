"""Paths between a source x_0 (t = 0) and data x_1 (t = 1): x_t = a(t) x_1 + b(t) x_0.

The source may be anything of the data's shape: Gaussian noise, an encoded caption, another image.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

Coefficient = Float[Tensor, "b"]


def expand_like(t: Shaped[Tensor, "b"], x: Shaped[Tensor, "b *d"]) -> Shaped[Tensor, "b *ones"]:
    """t (b,) viewed as (b, 1, ..., 1), so that it multiplies x (b, *d) sample by sample.

    The only way a per-sample number meets a state: plain broadcasting of (b,) against (b, d) is silently
    wrong when b == d. Raises ValueError where t is not one number per sample.
    """
    if t.shape != x.shape[:1]:
        raise ValueError(
            f"t must hold one value per sample, shape {tuple(x.shape[:1])}, got {tuple(t.shape)}; "
            "for one time shared by all samples pass t.expand(len(x))"
        )
    return t.view(-1, *[1] * (x.ndim - 1))


class Path(ABC):
    """x_t = a(t) x_1 + b(t) x_0 and its velocity; a path is its four coefficients."""

    @abstractmethod
    def coefficients(
        self, t: Float[Tensor, "b"]
    ) -> tuple[Coefficient, Coefficient, Coefficient, Coefficient]:
        """a, b and their time derivatives da, db, each (b,)."""

    def x_t(
        self, x_0: Float[Tensor, "b *d"], x_1: Float[Tensor, "b *d"], t: Float[Tensor, "b"]
    ) -> Float[Tensor, "b *d"]:
        """x_t = a(t) x_1 + b(t) x_0   (the flow of Lipman et al. eq. 11)"""
        a, b, _, _ = self.coefficients(t)
        return _weighted_sum(a, x_1, b, x_0)

    def v(
        self, x_0: Float[Tensor, "b *d"], x_1: Float[Tensor, "b *d"], t: Float[Tensor, "b"]
    ) -> Float[Tensor, "b *d"]:
        """v_t = d x_t / dt = a'(t) x_1 + b'(t) x_0   (the target of Lipman et al. eq. 14)"""
        _, _, da, db = self.coefficients(t)
        return _weighted_sum(da, x_1, db, x_0)


def _weighted_sum(
    p: Coefficient, x: Float[Tensor, "b *d"], q: Coefficient, y: Float[Tensor, "b *d"]
) -> Float[Tensor, "b *d"]:
    """p x + q y, computed in at least the precision of p and q, in the dtype of x and y."""
    total = expand_like(p, x) * x + expand_like(q, y) * y
    return total.to(torch.promote_types(x.dtype, y.dtype))


@dataclass(frozen=True)
class CondOT(Path):
    """The straight path of CrossFlow eq. 1-2 and Lipman et al. eq. 20-23, for any source.

        x_t = t x_1 + (1 - (1 - sigma_min) t) x_0,      v_t = x_1 - (1 - sigma_min) x_0

    It starts at x_0 and ends at x_1 + sigma_min x_0. `sigma_min` lies in [0, 1).
    """

    sigma_min: float = 1e-5

    def __post_init__(self) -> None:
        if not 0.0 <= self.sigma_min < 1.0:
            raise ValueError(f"sigma_min must lie in [0, 1), got {self.sigma_min}; the paper uses 1e-5")

    def coefficients(
        self, t: Float[Tensor, "b"]
    ) -> tuple[Coefficient, Coefficient, Coefficient, Coefficient]:
        """a = t, b = 1 - (1 - sigma_min) t, da = 1, db = -(1 - sigma_min)"""
        # (1 - t) is exact for t >= 1/2, so this form keeps b's digits near t = 1 in float32
        b = (1.0 - t) + self.sigma_min * t
        return t, b, torch.ones_like(t), torch.full_like(t, -(1.0 - self.sigma_min))


@dataclass(frozen=True)
class AffinePath(Path):
    """Any path x_t = a(t) x_1 + b(t) x_0 given by two functions of t; derivatives by forward-mode autodiff.

    `a` and `b` map (b,) to (b,) elementwise with torch operations, e.g. the trigonometric path
    `AffinePath(a=lambda t: torch.sin(t * pi / 2), b=lambda t: torch.sin((1 - t) * pi / 2))`.
    """

    a: Callable[[Tensor], Tensor]
    b: Callable[[Tensor], Tensor]

    def coefficients(
        self, t: Float[Tensor, "b"]
    ) -> tuple[Coefficient, Coefficient, Coefficient, Coefficient]:
        """a(t), b(t) and their exact derivatives"""
        a, da = _with_derivative(self.a, t)
        b, db = _with_derivative(self.b, t)
        return a, b, da, db


def _with_derivative(f: Callable[[Tensor], Tensor], t: Float[Tensor, "b"]) -> tuple[Coefficient, Coefficient]:
    """f(t) and f'(t) for an elementwise f."""
    value, derivative = torch.func.jvp(f, (t,), (torch.ones_like(t),))[:2]
    return value, derivative
