"""How a prediction without scale, or without scale and shift, is brought to metres before it is scored.

    metric                    as it is
    median                    p med(g) / med(p), medians over the mask                     (monodepth2)
    least_squares_depth       s p + t with min |s p + t - g|^2 over the mask               (Marigold)
    least_squares_disparity   1 / max(s p + t, 0.001) with min |s p + t - 1/g|^2; p is a disparity

Of many best (s, t) the one of least norm is taken, so a constant prediction is no error: zero gives s = 0, t = mean g.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float64
from torch import Tensor

LEAST_DISPARITY = 1e-3

Aligned = Float64[Tensor, "h w"]


@dataclass(frozen=True)
class Alignment:
    """Which of the alignments above, and on how many pixels it is fitted.

    max_resolution: fit on maps shrunk, by taking the nearest pixel, until the longer side has this many pixels.
    None: on all. shrink "marigold_width_only" is what Marigold's evaluation does, and what its ETH3D numbers were
    made with: it finds the factor from both sides but shrinks the width alone. "both_sides" is what was meant.
    The fits differ; the scored map keeps its size either way.
    """

    kind: str = "metric"
    max_resolution: int | None = None
    shrink: str = "marigold_width_only"

    def __post_init__(self) -> None:
        if self.kind not in ALIGNMENTS:
            raise ValueError(f"unknown alignment {self.kind!r}; known: {', '.join(ALIGNMENTS)}")
        if self.shrink not in SHRINKS:
            raise ValueError(f"unknown shrink {self.shrink!r}; known: {', '.join(SHRINKS)}")
        if self.max_resolution is not None and self.max_resolution < 1:
            raise ValueError(
                f"max_resolution must be positive, got {self.max_resolution}; None fits on all pixels"
            )

    def __str__(self) -> str:
        if self.max_resolution is None:
            return self.kind
        return f"{self.kind} at {self.max_resolution} px ({self.shrink})"

    def __call__(self, prediction: Aligned, truth: Aligned, mask: Bool[Tensor, "h w"]) -> Aligned:
        """The whole prediction in metres, (h, w); only pixels of the mask are fitted to."""
        return ALIGNMENTS[self.kind](prediction, truth, mask, self)

    def fit(self, x: Aligned, y: Aligned, mask: Bool[Tensor, "h w"]) -> tuple[float, float]:
        """(s, t) of least |s x + t - y|^2 over the mask; (0, 0) when it is empty."""
        if self.max_resolution is not None:
            factor = self.max_resolution / max(x.shape)
            if factor < 1:
                shrink = SHRINKS[self.shrink]
                x, y, mask = shrink(x, factor), shrink(y, factor), shrink(mask.double(), factor) > 0
        columns = torch.stack([x[mask], torch.ones_like(x[mask])], 1)
        scale, shift = np.linalg.lstsq(columns.numpy(), y[mask].numpy(), rcond=None)[0].tolist()
        return scale, shift


def _metric(prediction: Aligned, truth: Aligned, mask: Bool[Tensor, "h w"], how: Alignment) -> Aligned:
    return prediction


def _median(prediction: Aligned, truth: Aligned, mask: Bool[Tensor, "h w"], how: Alignment) -> Aligned:
    of_truth, of_prediction = (float(np.median(x[mask].numpy())) for x in (truth, prediction))
    if of_prediction == 0 or not math.isfinite(of_prediction):
        raise ValueError(
            f"the median of the prediction is {of_prediction}: no scale brings it to {of_truth}; "
            "look at the prediction, or use alignment 'least_squares_depth'"
        )
    return prediction * (of_truth / of_prediction)


def _depth(prediction: Aligned, truth: Aligned, mask: Bool[Tensor, "h w"], how: Alignment) -> Aligned:
    scale, shift = how.fit(prediction, truth, mask)
    return scale * prediction + shift


def _disparity(prediction: Aligned, truth: Aligned, mask: Bool[Tensor, "h w"], how: Alignment) -> Aligned:
    """Pixels whose disparity is not positive are left out of the fit, but scored."""
    fitted = mask & (truth > 0) & (prediction > 0)
    scale, shift = how.fit(prediction, torch.where(truth > 0, 1 / truth, 0), fitted)
    return 1 / (scale * prediction + shift).clamp(min=LEAST_DISPARITY)


def _width_only(x: Aligned, factor: float) -> Float64[Tensor, "h v"]:
    # an (h, w) map with one axis in front reads as h channels of a line, and lines have a width only
    return F.interpolate(x[None], scale_factor=factor, mode="nearest")[0]


def _both_sides(x: Aligned, factor: float) -> Float64[Tensor, "u v"]:
    return F.interpolate(x[None, None], scale_factor=factor, mode="nearest")[0, 0]


ALIGNMENTS: Mapping[str, Callable[..., Aligned]] = {
    "metric": _metric,
    "median": _median,
    "least_squares_depth": _depth,
    "least_squares_disparity": _disparity,
}
SHRINKS: Mapping[str, Callable[..., Tensor]] = {
    "marigold_width_only": _width_only,
    "both_sides": _both_sides,
}
