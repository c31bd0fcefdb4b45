"""Gaussian noise to Gaussian data: everything a network could predict, in closed form."""

from dataclasses import dataclass

import torch
from cf_flowcore import VE, VP, AffinePath, CondOT, Cosine, Path, Polynomial
from cf_flowcore.path import expand_like
from torch import Tensor

PATHS = {
    "condot": CondOT(gaussian_source=True),
    "condot to the point": CondOT(sigma_min=0.0, gaussian_source=True),
    "cosine": Cosine(gaussian_source=True),
    "polynomial": Polynomial(2.0, gaussian_source=True),
    "affine": AffinePath(lambda t: t**2, lambda t: (1 - t) * (1 + t / 2), gaussian_source=True),
    "vp": VP(),
    "ve": VE(0.1, 5.0),
    "ve to zero": VE(0.1, 5.0, ends_at_zero=True),
}


@dataclass(frozen=True)
class GaussianWorld:
    """x_0 ~ N(0, I), x_1 ~ N(mean, std^2 I), independent."""

    path: Path
    mean: float = 0.7
    std: float = 0.4

    def data(self, x: Tensor, t: Tensor) -> Tensor:
        """E[x_1 | x_t]: the regression of one Gaussian on another"""
        a, b = self._a_b(x, t)
        return self.mean + a * self.std**2 / (a**2 * self.std**2 + b**2) * (x - a * self.mean)

    def noise(self, x: Tensor, t: Tensor) -> Tensor:
        """E[x_0 | x_t]"""
        a, b = self._a_b(x, t)
        return b / (a**2 * self.std**2 + b**2) * (x - a * self.mean)

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """of N(a mean, a^2 std^2 + b^2)"""
        a, b = self._a_b(x, t)
        return -(x - a * self.mean) / (a**2 * self.std**2 + b**2)

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """The flow of N(m_t, s_t^2) is v = s_t'/s_t (x - m_t) + m_t' (Lipman et al. eq. 15); here by forward mode."""

        def m_s(t: Tensor) -> tuple[Tensor, Tensor]:
            a, b, _, _ = self.path.coefficients(t)
            return a * self.mean, torch.sqrt(a**2 * self.std**2 + b**2)

        (m, s), (dm, ds) = torch.func.jvp(m_s, (t,), (torch.ones_like(t),))[:2]
        m, s, dm, ds = (expand_like(c, x) for c in (m, s, dm, ds))
        return ds / s * (x - m) + dm

    def _a_b(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        a, b, _, _ = self.path.coefficients(t)
        return expand_like(a, x), expand_like(b, x)
