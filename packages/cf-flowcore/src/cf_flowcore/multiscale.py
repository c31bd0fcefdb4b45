"""DiMR's multi-scale loss: every stage of the cascade predicts the velocity at its own resolution."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cf_flowcore.loss import mean_square

SCALE_WEIGHTS = {
    1: (1.0,),
    2: (1 / 4, 1.0),
    3: (1 / 4, 1 / 2, 1.0),
}
"""DiMR's weights by number of stages, low resolution first."""


def scale_target(v_t: Float[Tensor, "b c h w"], k: int) -> Float[Tensor, "b c h_k w_k"]:
    """k avgpool_k(v_t): the k x k sum divided by k, so that white noise keeps its variance   (DiMR)"""
    return k * F.avg_pool2d(v_t, k)


def scale_losses(
    predictions: Sequence[Float[Tensor, "b c _ _"]],
    v_t: Float[Tensor, "b c h w"],
    known: Float[Tensor, "b 1 h w"] | None = None,
) -> Float[Tensor, "s b"]:
    """mean (prediction_s - scale_target(v_t, k_s))^2 of each scale s and sample, unweighted (also for logs).

    Each prediction is smaller than v_t by an integer k_s, the same for height and width (ValueError if not).

    known: 1 where x_1 was measured, 0 where it was filled in (depth without a reading). The target of a cell is then
    the average of its known pixels, and cells count by their share of them; a sample without any has loss 0.
    """
    if known is None:
        losses = [mean_square(p - scale_target(v_t, _scale_of(p, v_t))) for p in predictions]
    else:
        losses = [_known_mean_square(p, v_t, known, _scale_of(p, v_t)) for p in predictions]
    return torch.stack(losses)


def _known_mean_square(
    prediction: Float[Tensor, "b c _ _"],
    v_t: Float[Tensor, "b c h w"],
    known: Float[Tensor, "b 1 h w"],
    k: int,
) -> Float[Tensor, "b"]:
    share = F.avg_pool2d(known.to(v_t.dtype), k)  # (b, 1, h / k, w / k)
    # what was filled in may be anything, NaN as well
    target = scale_target(torch.where(known > 0, v_t, 0.0), k) / share.clamp(min=1 / (2 * k * k))
    square = (prediction - target).square().mean(1, keepdim=True)
    return (share * square).sum((1, 2, 3)) / share.sum((1, 2, 3)).clamp(min=1 / (2 * k * k))


def multiscale_loss(
    predictions: Sequence[Float[Tensor, "b c _ _"]],
    v_t: Float[Tensor, "b c h w"],
    weights: Sequence[float] | None = None,
) -> Float[Tensor, "b"]:
    """sum_s weight_s scale_losses_s, predictions and weights from low to high resolution   (DiMR)

    Default weights: (1/4, 1) for two scales, (1/4, 1/2, 1) for three.
    """
    return weighted_sum(scale_losses(predictions, v_t), weights)


def weighted_sum(losses: Float[Tensor, "s b"], weights: Sequence[float] | None = None) -> Float[Tensor, "b"]:
    """sum_s weight_s losses_s: with `scale_losses`, for who logs the scales and trains on their sum."""
    scales = len(losses)
    if weights is None and scales not in SCALE_WEIGHTS:
        raise ValueError(f"no default weights for {scales} scales, only {list(SCALE_WEIGHTS)}; pass weights=")
    chosen = SCALE_WEIGHTS[scales] if weights is None else tuple(weights)
    if len(chosen) != scales:
        raise ValueError(f"{scales} scales need as many weights, got {chosen}")
    return torch.stack([weight * loss for weight, loss in zip(chosen, losses, strict=True)]).sum(dim=0)


def _scale_of(prediction: Float[Tensor, "b c _ _"], v_t: Float[Tensor, "b c h w"]) -> int:
    """The integer k with k * prediction's size = v_t's size."""
    (h, w), (h_k, w_k) = v_t.shape[-2:], prediction.shape[-2:]
    k = h // h_k
    if (h_k * k, w_k * k) != (h, w):
        raise ValueError(
            f"a prediction of {h_k}x{w_k} does not divide the velocity's {h}x{w} by one integer; "
            "each stage must predict at 1/k of the full resolution"
        )
    return k
