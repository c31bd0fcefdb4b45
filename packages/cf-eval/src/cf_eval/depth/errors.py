"""Errors of one predicted depth map, over the pixels that count.

    abs_rel   mean |p - g| / g                   rmse_log   sqrt(mean (ln p - ln g)^2)
    sq_rel    mean (p - g)^2 / g                 log10      mean |log10 p - log10 g|
    rmse      sqrt(mean (p - g)^2)               silog      100 sqrt(mean e^2 - (mean e)^2),  e = ln p - ln g
    delta_k   share of pixels with max(p / g, g / p) < 1.25^k, strictly                     (CrossFlow tables 5, 8)

p is the prediction and g the ground truth, in metres. Computed in float64 whatever comes in.
"""

import math
from collections.abc import Mapping

from jaxtyping import Float64
from torch import Tensor

ERRORS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog", "delta_1", "delta_2", "delta_3")
DELTA = 1.25


def depth_errors(prediction: Float64[Tensor, "n"], truth: Float64[Tensor, "n"]) -> Mapping[str, float]:
    """The nine numbers above for n pixels, all positive. Raises ValueError for none, or for depth <= 0."""
    if len(truth) == 0:
        raise ValueError("no pixel to score: the mask is empty; skip the picture and count it")
    for name, depth in (("prediction", prediction), ("ground truth", truth)):
        # written so that NaN fails too
        if not bool((depth > 0).all() and depth.isfinite().all()):
            raise ValueError(
                f"the {name} has depth {_worst(depth)} on a scored pixel; mask it, or clip it to the caps"
            )
    difference, log_ratio = prediction - truth, prediction.log() - truth.log()
    ratio = (prediction / truth).maximum(truth / prediction)
    # mean e^2 - (mean e)^2, without the cancellation that can leave it below zero
    log_spread = (log_ratio - log_ratio.mean()).square().mean()
    values = {
        "abs_rel": (difference.abs() / truth).mean(),
        "sq_rel": (difference.square() / truth).mean(),
        "rmse": difference.square().mean().sqrt(),
        "rmse_log": log_ratio.square().mean().sqrt(),
        "log10": log_ratio.abs().mean() / math.log(10),
        "silog": 100 * log_spread.sqrt(),
        **{f"delta_{k}": (ratio < DELTA**k).double().mean() for k in (1, 2, 3)},
    }
    return {name: float(values[name]) for name in ERRORS}


def _worst(depth: Float64[Tensor, "n"]) -> float:
    wrong = depth[~((depth > 0) & depth.isfinite())]
    return float(wrong[0])
