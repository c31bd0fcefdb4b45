"""Paths between a source x_0 (t = 0) and data x_1 (t = 1): x_t = a(t) x_1 + b(t) x_0.

The source may be anything of the data's shape: Gaussian noise, an encoded caption, another image.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

Coefficient = Float[Tensor, "b"]


@dataclass(frozen=True)
class Rates:
    """b' and W = a' b - a b' times a factor f(t) that keeps them finite up to the end of the path, and b W.

    Where b falls to 0 like sqrt(1 - t), b' and W grow beyond all bounds, and conversions that are finite would be
    computed as infinity over infinity. With f = b nothing in them is; f = 1 where b' is finite anyway.
    """

    f: Coefficient
    db: Coefficient
    w: Coefficient
    bw: Coefficient


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
    """x_t = a(t) x_1 + b(t) x_0 and its velocity; a path is its four coefficients.

    gaussian_source: whether x_0 given x_1 is N(0, I). Only then has x_t a known score; a caption's latent is not, nor
    is noise that was coupled to the data by optimal transport.
    t_max: the last time at which the velocity is finite enough to train and sample.
    """

    gaussian_source: bool = False

    @property
    def t_max(self) -> float:
        return 1.0

    @abstractmethod
    def coefficients(
        self, t: Float[Tensor, "b"]
    ) -> tuple[Coefficient, Coefficient, Coefficient, Coefficient]:
        """a, b and their time derivatives da, db, each (b,)."""

    def rates(self, t: Float[Tensor, "b"]) -> Rates:
        """What conversions divide by; see `Rates`."""
        a, b, da, db = self.coefficients(t)
        w = da * b - a * db
        return Rates(torch.ones_like(t), db, w, b * w)

    def t_of(self, a: Coefficient, b: Coefficient) -> Coefficient:
        """The time at which a(t) : b(t) is a : b, by bisection; any common factor of a and b cancels.

        A ratio that the path does not reach gives the nearer end, 0 or 1.
        """
        low, high = torch.zeros_like(a), torch.ones_like(a)
        for _ in range(_BISECTIONS[a.dtype]):
            middle = (low + high) / 2
            a_m, b_m, _, _ = self.coefficients(middle)
            early = a_m * b < a * b_m  # a/b grows with t; the cross product also works where b is 0
            low, high = torch.where(early, middle, low), torch.where(early, high, middle)
        return (low + high) / 2

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


_BISECTIONS = {torch.float32: 26, torch.float64: 55}  # as far as the dtype tells times apart


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
    gaussian_source: bool = False

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

    def t_of(self, a: Coefficient, b: Coefficient) -> Coefficient:
        """t = a / (b + (1 - sigma_min) a)"""
        return (a / (b + (1.0 - self.sigma_min) * a)).clamp(0.0, 1.0)


@dataclass(frozen=True)
class Cosine(Path):
    """x_t = sin(pi t / 2) x_1 + cos(pi t / 2) x_0: keeps the variance where both ends have the same."""

    gaussian_source: bool = False

    def coefficients(
        self, t: Float[Tensor, "b"]
    ) -> tuple[Coefficient, Coefficient, Coefficient, Coefficient]:
        """a = sin(pi t / 2), b = cos(pi t / 2), da = pi/2 b, db = -pi/2 a"""
        quarter = math.pi / 2
        a = torch.sin(quarter * t)
        b = torch.sin(quarter * (1.0 - t))  # the cosine has no digits left near t = 1
        return a, b, quarter * b, -quarter * a

    def t_of(self, a: Coefficient, b: Coefficient) -> Coefficient:
        """t = 2/pi atan2(a, b)"""
        return torch.atan2(a, b) / (math.pi / 2)


@dataclass(frozen=True)
class Polynomial(Path):
    """x_t = t^n x_1 + (1 - t^n) x_0, n >= 1: for n > 1 it leaves the source late."""

    degree: float = 2.0
    gaussian_source: bool = False

    def __post_init__(self) -> None:
        if not self.degree >= 1.0:
            raise ValueError(f"degree must be at least 1, got {self.degree}; 1 is CondOT(sigma_min=0)")

    def coefficients(
        self, t: Float[Tensor, "b"]
    ) -> tuple[Coefficient, Coefficient, Coefficient, Coefficient]:
        """a = t^n, b = 1 - t^n, da = n t^(n - 1) = -db"""
        b = -torch.expm1(self.degree * torch.log1p(t - 1.0))  # 1 - t^n has no digits left near t = 1
        da = self.degree * t ** (self.degree - 1.0)
        return t**self.degree, b, da, -da

    def t_of(self, a: Coefficient, b: Coefficient) -> Coefficient:
        """t = (a / (a + b))^(1/n)"""
        return (a / (a + b)) ** (1.0 / self.degree)


@dataclass(frozen=True)
class AffinePath(Path):
    """Any path x_t = a(t) x_1 + b(t) x_0 given by two functions of t; derivatives by forward-mode autodiff.

    `a` and `b` map (b,) to (b,) elementwise with torch operations, e.g. the trigonometric path
    `AffinePath(a=lambda t: torch.sin(t * pi / 2), b=lambda t: torch.sin((1 - t) * pi / 2))`. Write b with 1 - t, which
    keeps its digits near t = 1. `da` and `db` may be given where the derivatives are known.
    """

    a: Callable[[Tensor], Tensor]
    b: Callable[[Tensor], Tensor]
    da: Callable[[Tensor], Tensor] | None = None
    db: Callable[[Tensor], Tensor] | None = None
    gaussian_source: bool = False

    def coefficients(
        self, t: Float[Tensor, "b"]
    ) -> tuple[Coefficient, Coefficient, Coefficient, Coefficient]:
        """a(t), b(t) and their exact derivatives"""
        a, da = _with_derivative(self.a, self.da, t)
        b, db = _with_derivative(self.b, self.db, t)
        return a, b, da, db


def _with_derivative(
    f: Callable[[Tensor], Tensor], df: Callable[[Tensor], Tensor] | None, t: Float[Tensor, "b"]
) -> tuple[Coefficient, Coefficient]:
    """f(t) and f'(t) for an elementwise f."""
    if df is not None:
        return f(t), df(t)
    value, derivative = torch.func.jvp(f, (t,), (torch.ones_like(t),))[:2]
    return value, derivative
