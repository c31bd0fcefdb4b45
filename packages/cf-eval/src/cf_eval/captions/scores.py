"""What a caption metric hands back: a value for each caption, and how the corpus value comes from their sums."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

Total = Callable[[Float64[np.ndarray, "r k"]], Float64[np.ndarray, "r v"]]


@dataclass(frozen=True)
class Scores:
    """Of m captions, the values of v metrics ("bleu_1" to "bleu_4" are four).

    per_caption: (m, v). statistics: (m, k), numbers that add up over captions; `total` turns r rows of such sums
    into r rows of values, so that a corpus, any part of it and a bootstrap resample are scored by the same formula.
    """

    names: tuple[str, ...]
    per_caption: Float64[np.ndarray, "m v"]
    statistics: Float64[np.ndarray, "m k"]
    total: Total

    @property
    def values(self) -> dict[str, float]:
        """The corpus values by name."""
        sums = self.statistics.sum(0, keepdims=True)
        return dict(zip(self.names, self.total(sums)[0].tolist(), strict=True))


def mean_score(name: str, per_caption: Float64[np.ndarray, "m"]) -> Scores:
    """A metric whose corpus value is the mean over captions."""
    ones = np.ones_like(per_caption)
    return Scores((name,), per_caption[:, None], np.stack([per_caption, ones], axis=1), _mean)


def _mean(sums: Float64[np.ndarray, "r 2"]) -> Float64[np.ndarray, "r 1"]:
    return sums[:, :1] / sums[:, 1:]
