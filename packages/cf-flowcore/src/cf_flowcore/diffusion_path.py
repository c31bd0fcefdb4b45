"""Diffusion as paths of Gaussian noise, in the time of this package: noise at t = 0, data at t = 1.

Their velocity grows beyond all bounds at t = 1 (but for geometric VE): train, evaluate and sample on [0, t_max], with
t_max = 1 - 1e-5 as in Lipman et al. With r = 1 - t, which is exact in floating point for t >= 1/2.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cf_flowcore.path import Coefficient, Path, Rates

EPSILON = 1e-5


@dataclass(frozen=True)
class VP(Path):
    """The variance-preserving path of Lipman et al. eq. 18-19.

        a = exp(-T/2),  b = sqrt(1 - a^2),  T(r) = integral of beta = r beta_min + r^2 (beta_max - beta_min) / 2

    a(0) = exp(-T(1)/2) is 0.0066 with the paper's constants: even at t = 0 a trace of the data is left.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    gaussian_source: bool = True

    def __post_init__(self) -> None:
        if not 0.0 < self.beta_min <= self.beta_max < math.inf:
            raise ValueError(
                f"VP needs 0 < beta_min <= beta_max, got {self.beta_min} and {self.beta_max}; the paper has 0.1 and 20"
            )

    @property
    def t_max(self) -> float:
        return 1.0 - EPSILON

    def beta(self, t: Float[Tensor, "b"]) -> Coefficient:
        """beta_min + (1 - t) (beta_max - beta_min)"""
        return self.beta_min + (1.0 - t) * (self.beta_max - self.beta_min)

    def coefficients(
        self, t: Float[Tensor, "b"]
    ) -> tuple[Coefficient, Coefficient, Coefficient, Coefficient]:
        """a, b, da = beta a / 2, db = -beta a^2 / (2 b)"""
        a, b = self._a_b(t)
        half = self.beta(t) / 2
        return a, b, half * a, -half * a.square() / b

    def rates(self, t: Float[Tensor, "b"]) -> Rates:
        """Times b: W b = beta a / 2"""
        a, b = self._a_b(t)
        half = self.beta(t) / 2
        return Rates(b, -half * a.square(), half * a, half * a)

    def t_of(self, a: Coefficient, b: Coefficient) -> Coefficient:
        """r = 2 T / (beta_min + sqrt(beta_min^2 + 2 (beta_max - beta_min) T)),  T = ln(1 + (b/a)^2)"""
        spread = self.beta_max - self.beta_min
        noisiest = self.beta_min + spread / 2  # T(1), at t = 0
        total = torch.log1p((b / a).square()).clamp(max=noisiest)
        r = 2.0 * total / (self.beta_min + torch.sqrt(self.beta_min**2 + 2.0 * spread * total))
        return (1.0 - r).clamp(0.0, 1.0)

    def _a_b(self, t: Float[Tensor, "b"]) -> tuple[Coefficient, Coefficient]:
        r = 1.0 - t
        total = r * self.beta_min + r.square() * (self.beta_max - self.beta_min) / 2
        return torch.exp(-total / 2), torch.sqrt(
            -torch.expm1(-total)
        )  # 1 - exp(-T) has no digits left near t = 1


@dataclass(frozen=True)
class VE(Path):
    """The variance-exploding path of Lipman et al. eq. 16-17: a = 1, and b falls from sigma_max.

        b = sigma_min (sigma_max / sigma_min)^r                        the usual, geometric schedule; ends at sigma_min
        b = sigma_min sqrt((sigma_max / sigma_min)^(2 r) - 1)          ends_at_zero: as the paper asks, sigma_0 = 0

    It starts at b(0) x_0 + x_1, far from N(0, I): begin `solve` at b(0) x_0, and expect a bias of that x_1.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    ends_at_zero: bool = False
    gaussian_source: bool = True

    def __post_init__(self) -> None:
        if not 0.0 < self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(f"VE needs 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}")

    @property
    def t_max(self) -> float:
        return 1.0 - EPSILON if self.ends_at_zero else 1.0

    @property
    def log_ratio(self) -> float:
        """L = ln(sigma_max / sigma_min)"""
        return math.log(self.sigma_max / self.sigma_min)

    def coefficients(
        self, t: Float[Tensor, "b"]
    ) -> tuple[Coefficient, Coefficient, Coefficient, Coefficient]:
        """a = 1, b, da = 0, db = -L b, or -L (b^2 + sigma_min^2) / b where it ends at zero"""
        b = self._b(t)
        steep = b + self.sigma_min**2 / b if self.ends_at_zero else b
        return torch.ones_like(t), b, torch.zeros_like(t), -self.log_ratio * steep

    def rates(self, t: Float[Tensor, "b"]) -> Rates:
        """Times b: W b = L b^2, or L (b^2 + sigma_min^2)"""
        b = self._b(t)
        w = self.log_ratio * (b.square() + self.sigma_min**2 if self.ends_at_zero else b.square())
        return Rates(b, -w, w, w)

    def t_of(self, a: Coefficient, b: Coefficient) -> Coefficient:
        """r = ln(b / (a sigma_min)) / L, or ln(1 + (b / (a sigma_min))^2) / (2 L)"""
        ratio = b / (a * self.sigma_min)
        r = torch.log1p(ratio.square()) / 2 if self.ends_at_zero else torch.log(ratio)
        return (1.0 - r / self.log_ratio).clamp(0.0, 1.0)

    def _b(self, t: Float[Tensor, "b"]) -> Coefficient:
        growth = self.log_ratio * (1.0 - t)
        if self.ends_at_zero:
            return self.sigma_min * torch.sqrt(torch.expm1(2.0 * growth))
        return self.sigma_min * torch.exp(growth)
