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
