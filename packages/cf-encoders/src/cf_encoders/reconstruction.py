"""How far a decoded z_0 is from what was encoded: the encoding loss of a plain VAE (CrossFlow sec. 4.1, Table 3b).

All return one number per sample. Images and latents are compared element by element. Text features are compared
token by token where `mask` is True: what stands behind it, were it NaN, touches neither value nor gradient. A sample
without any token has the value 0.
"""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from cf_encoders.numerics import widen
from cf_encoders.reduction import Reduction, reduce_samples

COSINE_EPS = 1e-6  # a zero vector then has cosine 0 with everything, and a finite gradient


def reconstruction_mse(
    x: Float[Tensor, "b *d"], reconstructed: Float[Tensor, "b *d"], reduction: Reduction = "mean"
) -> Float[Tensor, "b"]:
    """(x - D(z_0))^2 over each sample   (CrossFlow sec. 4.1)

    "mean" keeps its size at every resolution, as the flow loss does. "sum" is -log N(x; D(z_0), 1/2) up to a
    constant: what belongs next to a KL summed over the latent where the two together shall be a VAE's bound.
    """
    return reduce_samples((widen(x) - widen(reconstructed)).square(), reduction)


def reconstruction_l1(
    x: Float[Tensor, "b *d"], reconstructed: Float[Tensor, "b *d"], reduction: Reduction = "mean"
) -> Float[Tensor, "b"]:
    """|x - D(z_0)| over each sample: a few large errors, such as at edges, count for less than in the square."""
    return reduce_samples((widen(x) - widen(reconstructed)).abs(), reduction)


def token_mse(
    features: Float[Tensor, "b n d"], reconstructed: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]
) -> Float[Tensor, "b"]:
    """Mean squared error over the numbers of each sample's real tokens   (text reconstruction, Table 3b)"""
    squared = (_real(features, mask) - _real(reconstructed, mask)).square()
    return _mean_of_tokens(squared.mean(dim=-1), mask)


def token_cosine(
    features: Float[Tensor, "b n d"], reconstructed: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]
) -> Float[Tensor, "b"]:
    """Mean cosine of each real token's features with their reconstruction   (Table 9's accuracy, sec. B.4)

    A mean over each caption's tokens. For the mean over all tokens of a batch, weigh by `mask.sum(dim=1)`.
    """
    cosine = F.cosine_similarity(_real(features, mask), _real(reconstructed, mask), dim=-1, eps=COSINE_EPS)
    return _mean_of_tokens(cosine, mask)


def _real(features: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
    """Zeros where there is no token: their error is 0, and so is their cosine."""
    return widen(features).where(mask[..., None], 0.0)


def _mean_of_tokens(values: Float[Tensor, "b n"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b"]:
    return values.sum(dim=1) / mask.sum(dim=1).clamp_min(1)
