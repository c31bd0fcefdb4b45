"""Confidence intervals of corpus values: the images drawn again with replacement, scored by the same formula.

A resample is how often each image was drawn, and what metrics need is sums over images: all resamples of a metric are
one matrix product. Percentile intervals (Efron 1979). CIDEr-D keeps the document frequencies of the whole corpus.
"""

import numpy as np
from jaxtyping import Float64

from cf_eval.captions.scores import Scores

# Numbers held at a time, not results: the draws are the same whatever it is.
BLOCK = 2**22


def bootstrap_intervals(
    scores: Scores, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Of each value, the bounds between which the middle `level` of the resamples lie.

    level: 0 to 1, not included. The same seed gives the same images for every metric. ValueError for a bad level or
    fewer than 2 resamples.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}; 0.95 is usual")
    if resamples < 2:
        raise ValueError(f"resamples must be at least 2, got {resamples}; 1000 is usual")
    values = _resampled(scores, resamples, np.random.default_rng(seed))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {name: (float(a), float(b)) for name, a, b in zip(scores.names, low, high, strict=True)}


def _resampled(scores: Scores, resamples: int, generator: np.random.Generator) -> Float64[np.ndarray, "r v"]:
    images = len(scores.statistics)
    rows = max(1, BLOCK // images)
    sums = []
    for start in range(0, resamples, rows):
        drawn = generator.multinomial(images, np.full(images, 1 / images), size=min(rows, resamples - start))
        sums.append(drawn.astype(np.float64) @ scores.statistics)
    return scores.total(np.concatenate(sums))
