"""q(z_0 | x) = N(mean, diag(sigma^2)): what every variational encoder returns (CrossFlow sec. 4.1)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from cf_encoders.numerics import clamp_keeping_gradient, widen
from cf_encoders.reduction import Reduction, reduce_samples

LOGVAR_RANGE = (-30.0, 20.0)  # sigma from 3e-7 to 2e4: far outside any use, far inside float32's exp
ACTIVE_VARIANCE = 0.01  # Burda et al. 2016: a dimension whose mean varies less over the data says nothing
KLForm = Literal["paper", "released"]


@dataclass(frozen=True)
class DiagonalGaussian:
    """A batch of Gaussians with diagonal covariance, of any shape (b, ...).

    `logvar` is log sigma^2. It is clamped to LOGVAR_RANGE so that exp cannot overflow; the gradient passes
    the clamp unchanged, so the KL pulls a runaway `logvar` back.
    """

    mean: Float[Tensor, "b *d"]
    logvar: Float[Tensor, "b *d"]

    def __post_init__(self) -> None:
        if self.mean.shape != self.logvar.shape:
            mean, logvar = tuple(self.mean.shape), tuple(self.logvar.shape)
            raise ValueError(f"mean and logvar must have one shape, got {mean} and {logvar}")
        object.__setattr__(self, "logvar", clamp_keeping_gradient(self.logvar, *LOGVAR_RANGE))

    @property
    def std(self) -> Float[Tensor, "b *d"]:
        """sigma = exp(logvar / 2)"""
        return (0.5 * self.logvar).exp()

    def sample(
        self, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Float[Tensor, "b *d"]:
        """z_0 = mean + temperature * sigma * eps, eps ~ N(0, I); temperature 0 is the mean.

        eps is drawn on the generator's device, so that a CPU generator gives the same z_0 on every device.
        """
        if temperature < 0:
            raise ValueError(f"temperature must be >= 0, got {temperature}; 0 gives the mean")
        device = self.mean.device if generator is None else generator.device
        eps = torch.randn(self.mean.shape, generator=generator, device=device, dtype=self.mean.dtype)
        return self.mean + temperature * self.std * eps.to(self.mean.device)

    def kl(self, reduction: Reduction = "sum") -> Float[Tensor, "b"]:
        """KL(q || N(0, I)) = -1/2 sum(1 + logvar - mean^2 - sigma^2)   (CrossFlow's L_KL)

        `reduction` is over the latent's dimensions; the batch stays. A weight for "sum" must be multiplied by
        the number of dimensions to mean the same with "mean".
        """
        return self._divergence(widen(self.mean).square(), reduction)

    def kl_sextic(self, reduction: Reduction = "sum") -> Float[Tensor, "b"]:
        """-1/2 sum(1 + logvar - (0.3 mean)^6 - sigma^2): the form of the public code, not a KL divergence.

        Means roam freely within about +-3 and are pulled back steeply beyond (0.5 at 3.3, 43 at 7).
        """
        return self._divergence((0.3 * widen(self.mean)) ** 6, reduction)

    def _divergence(self, mean_penalty: Float[Tensor, "b *d"], reduction: Reduction) -> Float[Tensor, "b"]:
        logvar = widen(self.logvar)
        # expm1(logvar) is sigma^2 - 1 without the cancellation near sigma = 1
        return reduce_samples(0.5 * (mean_penalty + torch.expm1(logvar) - logvar), reduction)

    def statistics(self) -> dict[str, Float[Tensor, ""]]:
        """Warning signs of a collapse, detached, for the log.

        mean_abs: mean |mean|
        mean_std: spread of the mean over the batch; 0 where every caption gives the same source
        sigma: mean sigma; 0 where no distribution is left, 1 is the prior's
        snr: batch variance of the mean / sigma^2
        active: share of dimensions whose mean varies over the batch by more than ACTIVE_VARIANCE
        """
        mean, sigma = widen(self.mean.detach()), widen(self.std.detach())
        variance = mean.var(dim=0, correction=0)
        return {
            "mean_abs": mean.abs().mean(),
            "mean_std": variance.sqrt().mean(),
            "sigma": sigma.mean(),
            "snr": variance.mean() / sigma.square().mean(),
            "active": (variance > ACTIVE_VARIANCE).to(variance.dtype).mean(),
        }


KL_FORMS: dict[KLForm, Callable[[DiagonalGaussian, Reduction], Float[Tensor, "b"]]] = {
    "paper": DiagonalGaussian.kl,
    "released": DiagonalGaussian.kl_sextic,
}
"""The paper's divergence, and the public code's; both stay per sample, reduced over the latent as named."""
