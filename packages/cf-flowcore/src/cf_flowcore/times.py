"""Laws of the training time t. Each draws `law(b, generator=...) -> (b,)` and knows its `log_density(t)`.

A law is a map from uniform numbers to times, `from_uniform`; that is also what makes it stratifiable.
Draws are float32 and strictly inside (0, 1). In CrossFlow the density near t = 0 matters most: that is where
the field decides which image to make.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cf_flowcore.draw import Device, permutation, uniform_numbers

Times = Callable[..., Float[Tensor, "b"]]
"""What a loss asks for: times(b, *, generator=None, device=None) -> (b,). Every law below is one."""

_LARGEST_BELOW_ONE = 1.0 - 2.0**-24  # float32
_STEEPEST_MODE = 2.0 / (math.pi - 2.0)
_SMALLEST = torch.finfo(torch.float32).tiny


class TimeLaw(ABC):
    """A probability law on (0, 1)."""

    @abstractmethod
    def from_uniform(self, u: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """Carries uniform numbers in [0, 1) to times that follow this law."""

    @abstractmethod
    def log_density(self, t: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """ln p(t)"""

    def __call__(
        self, b: int, *, generator: torch.Generator | None = None, device: Device = None
    ) -> Float[Tensor, "b"]:
        """b independent times, float32, strictly inside (0, 1)."""
        u = uniform_numbers(b, generator=generator, device=device)
        return strictly_inside(self.from_uniform(u))


def strictly_inside(t: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
    """t kept off 0 and 1 by the least float32 allows."""
    return t.clamp(_SMALLEST, _LARGEST_BELOW_ONE)


@dataclass(frozen=True)
class Uniform(TimeLaw):
    """p(t) = 1 / (high - low) on (low, high). Losses that are singular at t = 1 use high = 1 - 1e-5."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.low < self.high <= 1.0:
            raise ValueError(f"Uniform needs 0 <= low < high <= 1, got low={self.low}, high={self.high}")

    def from_uniform(self, u: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """t = low + (high - low) u"""
        return self.low + (self.high - self.low) * u

    def log_density(self, t: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """-ln(high - low) inside, -inf outside"""
        inside = (self.low <= t) & (t <= self.high)
        return torch.where(inside, -math.log(self.high - self.low), -math.inf).to(t.dtype)


@dataclass(frozen=True)
class LogitNormal(TimeLaw):
    """t = sigmoid(mean + std z), z ~ N(0, 1): most draws in the middle; (0, 1) in CrossFlow's code."""

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not self.std > 0.0:
            raise ValueError(f"LogitNormal needs std > 0, got {self.std}")

    def from_uniform(self, u: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """t = sigmoid(mean + std Phi^-1(u))"""
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u))

    def log_density(self, t: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """-(logit t - mean)^2 / (2 std^2) - ln(std sqrt(2 pi) t (1 - t))"""
        z = (torch.logit(t) - self.mean) / self.std
        normaliser = math.log(self.std * math.sqrt(2.0 * math.pi))
        return -0.5 * z.square() - normaliser - torch.log(t) - torch.log1p(-t)


@dataclass(frozen=True)
class Power(TimeLaw):
    """t = u^exponent: density towards t = 0 for exponent > 1, towards t = 1 below it."""

    exponent: float = 3.0

    def __post_init__(self) -> None:
        if not self.exponent > 0.0:
            raise ValueError(f"Power needs exponent > 0, got {self.exponent}; 1 is uniform")

    def from_uniform(self, u: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """t = u^exponent"""
        return u**self.exponent

    def log_density(self, t: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """p(t) = t^(1/exponent - 1) / exponent"""
        return (1.0 / self.exponent - 1.0) * torch.log(t) - math.log(self.exponent)


@dataclass(frozen=True)
class Mode(TimeLaw):
    """t = u + scale (cos^2(pi u / 2) - 1 + u): heavy tails towards both ends, or the middle   (Esser et al. 2024)

    scale in [-1, 2 / (pi - 2)]: 0 is uniform, above 0 favours the middle, below 0 the ends. SD3 uses 1.29.
    """

    scale: float = 1.29

    def __post_init__(self) -> None:
        if not -1.0 <= self.scale <= _STEEPEST_MODE:
            raise ValueError(f"Mode needs -1 <= scale <= {_STEEPEST_MODE:.4f}, got {self.scale}")

    def from_uniform(self, u: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """t = u + scale (cos^2(pi u / 2) - 1 + u)"""
        return u + self.scale * (torch.cos(math.pi / 2 * u).square() - 1.0 + u)

    def log_density(self, t: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """-ln dt/du at the u that gives t, found by bisection: there is no closed form"""
        low, high = torch.zeros_like(t), torch.ones_like(t)
        for _ in range(60):
            middle = (low + high) / 2
            below = self.from_uniform(middle) < t
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        slope = 1.0 + self.scale * (1.0 - math.pi / 2 * torch.sin(math.pi * (low + high) / 2))
        return -torch.log(slope)


@dataclass(frozen=True)
class Shifted(TimeLaw):
    """A law whose times are shifted towards the source: for larger images, which need more noise   (Esser et al. 2024)

    factor: k of `shift`; `resolution_factor` gives it. Above 1 more time is spent near t = 0.
    """

    law: TimeLaw
    factor: float

    def __post_init__(self) -> None:
        _check_factor(self.factor)

    def from_uniform(self, u: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """shift(t, factor) of the law's t"""
        return shift(self.law.from_uniform(u), self.factor)

    def log_density(self, t: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """ln p(t') + ln dt'/dt, with t' = shift(t, 1 / factor) the time before the shift"""
        largest = 1.0 - torch.finfo(t.dtype).eps / 2  # it may round to 1, where laws have no density
        before = shift(t, 1.0 / self.factor).clamp(_SMALLEST, largest)
        stretch = math.log(self.factor) - 2.0 * torch.log(t * (self.factor - 1.0) + 1.0)
        return self.law.log_density(before) + stretch


def shift(t: Float[Tensor, "*n"], factor: float) -> Float[Tensor, "*n"]:
    """t / (t + k (1 - t)): the ends stay, k > 1 moves times towards the source; its inverse has 1 / k

    In terms of the noise level s = 1 - t it is the usual k s / (1 + (k - 1) s).
    """
    _check_factor(factor)
    return t / (t + factor * (1.0 - t))


def resolution_factor(pixels: int, base_pixels: int) -> float:
    """k = sqrt(pixels / base_pixels): the same uncertainty at another number of pixels (Esser et al. 2024, eq. 23)"""
    if pixels < 1 or base_pixels < 1:
        raise ValueError(f"pixels and base_pixels must be at least 1, got {pixels} and {base_pixels}")
    return math.sqrt(pixels / base_pixels)


def _check_factor(factor: float) -> None:
    if not 0.0 < factor < math.inf:
        raise ValueError(f"the factor of a shift must be positive, got {factor}; 1 leaves times as they are")


@dataclass(frozen=True)
class Mixture(TimeLaw):
    """Law `a` with probability `weight`, else law `b`."""

    a: TimeLaw
    b: TimeLaw
    weight: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 < self.weight < 1.0:
            raise ValueError(f"Mixture needs 0 < weight < 1, got {self.weight}; at 0 or 1 use one law alone")

    def from_uniform(self, u: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """[0, weight) goes to `a`, [weight, 1) to `b`: stratified u so gives both their exact share."""
        from_a = self.a.from_uniform((u / self.weight).clamp(max=_LARGEST_BELOW_ONE))
        from_b = self.b.from_uniform(((u - self.weight) / (1.0 - self.weight)).clamp(0.0, _LARGEST_BELOW_ONE))
        return torch.where(u < self.weight, from_a, from_b)

    def log_density(self, t: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """ln(weight p_a(t) + (1 - weight) p_b(t))"""
        return torch.logaddexp(
            self.a.log_density(t) + math.log(self.weight),
            self.b.log_density(t) + math.log1p(-self.weight),
        )


@dataclass(frozen=True)
class Stratified:
    """The same law, drawn one per stratum: u_i = (i + uniform) / b in random order.

    Each time still follows `law`; together they cover it evenly, which lowers the variance of the loss.
    """

    law: TimeLaw

    def __call__(
        self, b: int, *, generator: torch.Generator | None = None, device: Device = None
    ) -> Float[Tensor, "b"]:
        """b times, one from each b-th of the law, shuffled."""
        offset = uniform_numbers(b, generator=generator, device=device)
        stratum = permutation(b, generator=generator, device=device)
        u = ((stratum + offset) / b).clamp(max=_LARGEST_BELOW_ONE)
        return strictly_inside(self.law.from_uniform(u))

    def log_density(self, t: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """ln p(t) of one draw: that of `law`."""
        return self.law.log_density(t)


uniform = Uniform()
logit_normal = LogitNormal()
