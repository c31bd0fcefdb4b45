"""How long the next adaptive step may be: the tolerance it is measured by, and the rule that answers."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Tolerance:
    """A step is accepted when the RMS over the batch of error / (atol + rtol |x|) is at most 1."""

    rtol: float
    atol: float

    def __post_init__(self) -> None:
        if not (self.rtol >= 0.0 and self.atol >= 0.0 and self.rtol + self.atol > 0.0):
            raise ValueError(f"rtol and atol must be >= 0 and not both 0, got {self.rtol} and {self.atol}")

    def scale(self, size: Float[Tensor, "b *d"]) -> Float[Tensor, "b *d"]:
        """atol + rtol size, with size = |x|"""
        return torch.add(torch.tensor(self.atol, dtype=size.dtype), size, alpha=self.rtol)


@dataclass(frozen=True)
class StepControl:
    """The next step is h * safety * e_n^-((integral + proportional)/order) * e_(n-1)^(proportional/order).

    e is the error in units of the tolerance. The factor on h stays in [least, largest], and in
    [least_accepted, largest] after an accepted step.
    """

    integral: float
    proportional: float
    safety: float = 0.9
    least: float = 0.2
    least_accepted: float = 0.2
    largest: float = 10.0

    def __post_init__(self) -> None:
        if not (0.0 < self.safety <= 1.0 and 0.0 < self.least < 1.0 < self.largest):
            raise ValueError(f"StepControl needs 0 < safety <= 1 and 0 < least < 1 < largest, got {self}")

    def after_accepted(self, error: float, previous: float, order: int) -> float:
        """The factor on h where error <= 1; `previous` is the error of the accepted step before."""
        return min(self.largest, max(self.least_accepted, self._raw(error, previous, order)))

    def after_rejected(self, error: float, order: int) -> float:
        """The factor on h where error > 1: below `safety`."""
        return max(self.least, self._raw(error, 1.0, order))

    def factors(
        self,
        error: Float[Tensor, "b"],
        accepted: Bool[Tensor, "b"],
        previous: Float[Tensor, "b"],
        order: int,
    ) -> Float[Tensor, "b"]:
        """The factor on each sample's own h, with accepted = error <= 1; a NaN counts as an infinite error."""
        raw = self.safety * error.clamp(min=1e-10) ** (-(self.integral + self.proportional) / order)
        if self.proportional:
            history = previous.clamp(min=1e-4).pow_(self.proportional / order)
            raw = torch.where(accepted, raw * history, raw)
        least = torch.full_like(raw, self.least)
        if self.least_accepted != self.least:
            least.masked_fill_(accepted, self.least_accepted)
        return torch.fmax(raw, least).clamp_(max=self.largest)  # fmax takes `least` where raw is NaN

    def _raw(self, error: float, previous: float, order: int) -> float:
        error, previous = max(error, 1e-10), max(previous, 1e-4)  # a power of zero is no use
        exponent = (self.integral + self.proportional) / order
        return self.safety * error**-exponent * previous ** (self.proportional / order)


PI_CONTROL = StepControl(integral=0.65, proportional=0.2)
"""Hairer & Wanner's code DOPRI5 (beta = 0.04): exponents 0.2 - 0.75 beta = 0.85 / 5 and beta = 0.2 / 5."""

I_CONTROL = StepControl(integral=1.0, proportional=0.0, least_accepted=1.0)
"""torchdiffeq's rule, to compare NFE with the papers."""


def rms(x: Float[Tensor, "b *d"]) -> Float[Tensor, ""]:
    """The root of the mean square over everything."""
    return torch.linalg.vector_norm(x) / math.sqrt(max(x.numel(), 1))


def rms_of_each(x: Float[Tensor, "b *d"], factor: float = 1.0) -> Float[Tensor, "b"]:
    """The root of the mean square of every sample, times `factor`."""
    flat = x.flatten(1) if x.ndim > 1 else x[:, None]
    return torch.linalg.vector_norm(flat, dim=1) * (factor / math.sqrt(max(flat.shape[1], 1)))


def worst_rms(x: Float[Tensor, "b *d"]) -> Float[Tensor, ""]:
    """The root of the mean square of the sample where it is largest."""
    return rms_of_each(x).max()


NORMS = {"rms": rms, "max": worst_rms}
"""How a batch's error becomes one number."""


WIDE = (torch.float32, torch.float64)


def wide(x: Float[Tensor, "b *d"]) -> Float[Tensor, "b *d"]:
    """x in at least float32."""
    return x if x.dtype in WIDE else x.float()
