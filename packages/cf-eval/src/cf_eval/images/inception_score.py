"""Inception Score (Salimans et al. 2016): is each picture clearly of one class, and all of them of many?"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cf_eval.distributed import Group, all_ranks
from cf_eval.images.feature_set import FeatureSet, Id, merged
from cf_eval.images.features import Features, features_of
from cf_eval.images.read import Images
from cf_eval.images.two_sets import in_float64
from cf_eval.result import Result, is_fid_inception


@dataclass(frozen=True)
class Splits:
    """How many parts, and the seed of the shuffle before (None: parts in order). torch-fidelity's by default."""

    number: int = 10
    seed: int | None = 2020

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ValueError(f"the Inception Score needs at least 1 split, got {self.number}")


def inception_score(logits: Float[Tensor, "n v"], splits: Splits) -> tuple[float, float]:
    """Mean and standard deviation (ddof 0) over the splits of exp(mean_x KL(p(y | x) || p(y))).

    Split i holds the rows from i n // s to (i + 1) n // s. 1 for constant predictions, v for one-hot ones spread
    evenly. Raises ValueError where a split would be empty.
    """
    n, s = len(logits), splits.number
    if n < s:
        raise ValueError(
            f"{s} splits of {n} samples leave some empty; pass Splits(number=...) of at most {n}"
        )
    x = in_float64(logits)
    if splits.seed is not None:
        x = x[torch.from_numpy(np.random.RandomState(splits.seed).permutation(n))]
    scores = [_score(x[i * n // s : (i + 1) * n // s]) for i in range(s)]
    return float(np.mean(scores)), float(np.std(scores))


def _score(logits: Float[Tensor, "n v"]) -> float:
    log_p = logits.log_softmax(1)
    log_q = log_p.logsumexp(0) - np.log(len(log_p))  # log of the mean of p, never log 0
    return float((log_p.exp() * (log_p - log_q)).sum(1).mean().exp())


class InceptionScore:
    """Of a stream of generated pictures; `features` are the network's logits, not its pooled features.

    torch-fidelity's score is of `inception_features(path, "torch-fidelity", tap="logits_unbiased")`. With ids the
    shuffle, and so the score, is the same for any number of processes.
    """

    def __init__(self, features: Features, splits: Splits = Splits()) -> None:
        self.features = features
        self.splits = splits
        self.generated = FeatureSet()

    def add_batch(
        self,
        generated: Images,
        value_range: str = "uint8",
        ids: Sequence[Id] | None = None,
        batch_size: int = 32,
    ) -> None:
        """Add pictures in any form; see TwoSets.add_batch."""
        rows = features_of(generated, self.features, value_range, batch_size, ids)
        self.generated.add(rows, ids)

    def add_features(self, generated: Float[Tensor, "n v"], ids: Sequence[Id] | None = None) -> None:
        """Add logits that `self.features` gave already."""
        self.generated.add(generated, ids)

    def merge(self, other: "InceptionScore") -> None:
        """Take in what another rank or shard has seen through the same network."""
        if other.features.name != self.features.name:
            raise ValueError(f"cannot merge {other.features.name!r} into {self.features.name!r}")
        self.generated.merge(other.generated)

    def gathered(self, group: Group | None = None) -> "InceptionScore":
        """A new metric that has seen what all ranks of the group have, the same on each. All ranks must call it."""
        whole = copy.copy(self)
        whole.generated = merged(all_ranks(self.generated, group))
        return whole

    def compute(self) -> Result:
        """Raises ValueError for fewer samples than splits."""
        if not self.generated.count:
            raise ValueError(
                "the generated set has 0 samples; the Inception Score needs at least one per split"
            )
        mean, std = inception_score(self.generated.features(), self.splits)
        name = "inception_score" if is_fid_inception(self.features.weights) else "classifier_score"
        order = "in order" if self.splits.seed is None else f"shuffled with seed {self.splits.seed}"
        return Result(
            metric=name,
            values={f"{name}_mean": mean, f"{name}_std": std},
            protocol=f"{self.features.name}; {self.splits.number} splits {order}, ddof 0",
            count=self.generated.count,
            details={"duplicates_dropped": self.generated.dropped, **self.features.weights},
        )
