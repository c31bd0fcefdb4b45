"""The weight of the KL that fits a latent's size: what keeps sigma alive at 4 x 32 x 32 kills it elsewhere.

The flow loss is a mean over the latent's D dimensions, the KL a sum (`DiagonalGaussian.kl()`), so against the flow
loss a weight lambda counts as lambda D per dimension. Where does that leave sigma? Take a caption that can be read
off x_0, and an x_1 that varies by `spread` around what the caption fixes. On x_t = (1 - t) x_0 + t x_1 the best
possible velocity still misses, per dimension,

    Var(x_1 - x_0 | x_t) = spread^2 sigma^2 / ((1 - t)^2 sigma^2 + t^2 spread^2)

which over t ~ U(0, 1) is (pi / 2) spread sigma. The flow loss falls with sigma all the way to 0, and only the KL
holds it: the derivative by sigma of (pi / 2) spread sigma + lambda D (sigma^2 - 1 - ln sigma^2) / 2 vanishes at

    1 / sigma - sigma = pi spread / (2 lambda D)

Sigma depends on lambda D alone: keep that, and a weight moves from one latent to another. The flow loss at the balance
is lambda D (1 - sigma^2), below lambda D: one that looks splendid may only say that the source has lost its noise.
L_Enc presses sigma down too. It knows only cosines, so its pull does not grow with D, and the rule stands.

Measured on tiny flows with 192 to 3,072 dimensions (benchmarks/results/kl_weight): at equal lambda D the sigmas agree
within a factor of 1.3 for weights from a quarter to four times the paper's, and at the paper's the pull of the flow
loss on ln sigma is the flow loss within 5 %. Away from it the formula is rougher: a network's own error adds a floor
under small sigmas, and where SNR falls below 1 the caption can no longer be read off at once.
"""

import math
from collections.abc import Sequence

from cf_encoders.gaussian import KLForm
from cf_encoders.reduction import Reduction

REFERENCE_LATENT = (4, 32, 32)
REFERENCE_WEIGHTS: dict[KLForm, float] = {
    "paper": 1e-4,  # CrossFlow app. A; the reduction is not stated, taken as the sum, which is the public code's
    "released": 1e-2,  # the public code, with the sixth power of the mean
}
"""Weights of the sum over REFERENCE_LATENT."""

PER_DIMENSION_RANGE = (0.02, 0.8)
"""Where a weight per dimension does no harm. The paper's is 0.41. With four times that, samples found their captions
a third less often at every size of latent; with a quarter as often, to within the error of 256 held-out pairs and one
seed. 0.02 is the least that was tried: sigma 0.03 to 0.05, also at no clear cost.
"""


def kl_weight(
    latent: Sequence[int],
    form: KLForm = "paper",
    *,
    reduction: Reduction = "sum",
    reference: Sequence[int] = REFERENCE_LATENT,
) -> float:
    """The published weight, carried from `reference` to a latent of another size.

    The same per dimension: 1e-4 at 4 x 32 x 32 is 0.41 per dimension, so 2.7e-4 at 24 x 8 x 8. For a KL reduced by
    "mean" it is the weight per dimension itself.
    """
    if form not in REFERENCE_WEIGHTS:
        raise ValueError(f"unknown form {form!r} of the KL; known: {', '.join(REFERENCE_WEIGHTS)}")
    per_dimension = REFERENCE_WEIGHTS[form] * _dimensions(reference)
    return per_dimension / _summands(latent, reduction)


def balanced_sigma(
    weight: float, latent: Sequence[int], *, spread: float = 1.0, reduction: Reduction = "sum"
) -> float:
    """Where flow loss and KL leave sigma: the root in (0, 1) of 1 / sigma - sigma = pi spread / (2 lambda D).

    spread: standard deviation of x_1 in a dimension, given its caption; 1 for a whitened latent of which the
    caption says nothing. An idea of the size, not a forecast: the encoder's own loss presses sigma further down.
    """
    _require_positive(weight=weight, spread=spread)
    half = math.pi * spread / (4 * weight * _summands(latent, reduction))
    return 1 / (half + math.hypot(half, 1))  # the root sqrt(half^2 + 1) - half without its cancellation


def kl_weight_for_sigma(
    sigma: float, latent: Sequence[int], *, spread: float = 1.0, reduction: Reduction = "sum"
) -> float:
    """The weight that leaves this sigma: the inverse of `balanced_sigma`."""
    if not 0 < sigma < 1:
        raise ValueError(f"sigma must lie in (0, 1), got {sigma}; no finite weight holds it at 1")
    _require_positive(spread=spread)
    return math.pi * spread / (2 * (1 / sigma - sigma)) / _summands(latent, reduction)


def kl_weight_warning(
    weight: float, latent: Sequence[int], form: KLForm = "paper", *, reduction: Reduction = "sum"
) -> str | None:
    """A line that says how this weight would spoil the source, and what to take; None where it is in range.

    The range, PER_DIMENSION_RANGE, was measured with the paper's form. Only that has an upper end: the released form
    lets means up to 3 go free, so captions outlive sigma = 1.
    """
    good, dimensions = kl_weight(latent, form, reduction=reduction), _dimensions(latent)
    per_dimension = weight * _summands(latent, reduction)
    low, high = PER_DIMENSION_RANGE
    if low <= per_dimension <= (high if form == "paper" else math.inf):
        return None
    size = f"KL weight {weight:.3g} is {per_dimension:.3g} per dimension of {dimensions:,}"
    if per_dimension < low:
        return f"{size}: sigma will shrink until hardly a distribution is left; take {good:.2g}"
    return f"{size}: the source will be mostly noise, and samples follow their captions less; take {good:.2g}"


def _dimensions(latent: Sequence[int]) -> int:
    if not latent or min(latent) < 1:
        raise ValueError(f"latent must be a shape of positive integers, got {tuple(latent)}")
    return math.prod(latent)


def _summands(latent: Sequence[int], reduction: Reduction) -> int:
    """How many terms the KL adds up, for one of the flow loss."""
    known: dict[Reduction, int] = {"sum": _dimensions(latent), "mean": 1}
    if reduction not in known:
        raise ValueError(f"unknown reduction {reduction!r}; known: {', '.join(known)}")
    return known[reduction]


def _require_positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be > 0 and finite, got {value}")
