"""Kernel Inception Distance (Binkowski et al. 2018): an unbiased distance, fit for sets of few pictures."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cf_eval.images.feature_set import FeatureSet
from cf_eval.images.features import Features
from cf_eval.images.mmd import cubic, unbiased_mmd2
from cf_eval.images.two_sets import TwoSets, in_float64
from cf_eval.result import Result, is_fid_inception


@dataclass(frozen=True)
class Subsets:
    """How many random subsets of how many samples of each set; torch-fidelity's by default, seed included."""

    number: int = 100
    size: int = 1000
    seed: int = 2020

    def __post_init__(self) -> None:
        if self.number < 1 or self.size < 2:
            raise ValueError(
                f"KID needs at least 1 subset of at least 2 samples, got {self.number} of {self.size}"
            )


def kid_of_subsets(
    generated: Float[Tensor, "n d"], real: Float[Tensor, "m d"], subsets: Subsets
) -> tuple[float, float]:
    """Mean and standard deviation (ddof 0) of the MMD^2 of random subsets, drawn without replacement.

    In each round the generated subset is drawn first, by numpy's RandomState: torch-fidelity's values, with the
    generated set as its input 1. Raises ValueError naming both sizes where a set has fewer samples.
    """
    if min(len(generated), len(real)) < subsets.size:
        raise ValueError(
            f"subsets of {subsets.size} cannot be drawn from {len(generated)} generated and {len(real)} real "
            "samples; pass Subsets(size=...), or take the value of the whole sets"
        )
    draw = np.random.RandomState(subsets.seed)
    values = []
    for _ in range(subsets.number):
        x, y = (
            rows[torch.from_numpy(draw.choice(len(rows), subsets.size, replace=False))]
            for rows in (generated, real)
        )
        values.append(unbiased_mmd2(x, y, cubic))
    return float(np.mean(values)), float(np.std(values))


class KID(TwoSets[FeatureSet]):
    """MMD^2 with the cubic kernel between real and generated features: of random subsets, or of the whole sets.

    subsets=None takes the whole sets: no seed and no order moves that value, which makes it the one to compare
    across tools, at a cost that grows with the square of the sets. Features are kept, 4 d bytes a picture.
    """

    def __init__(self, features: Features, subsets: Subsets | None = Subsets()) -> None:
        super().__init__(features, FeatureSet)
        self.subsets = subsets

    def compute(self) -> Result:
        """Raises ValueError while a set has fewer than 2 samples, or fewer than a subset."""
        self.require_samples(2, "KID")
        real, generated = in_float64(self.real.features()), in_float64(self.generated.features())
        name = "kid" if is_fid_inception(self.features.weights) else "kernel_distance"
        if self.subsets is None:
            values, drawn = {f"{name}_full": unbiased_mmd2(generated, real, cubic)}, "whole sets"
        else:
            mean, std = kid_of_subsets(generated, real, self.subsets)
            values = {f"{name}_mean": mean, f"{name}_std": std}
            drawn = f"{self.subsets.number} subsets of {self.subsets.size}, seed {self.subsets.seed}"
        return Result(
            metric=name,
            values=values,
            protocol=f"{self.features.name}; kernel (x . y / d + 1)^3, unbiased, {drawn}",
            count=self.generated.count,
            details=self.details(),
        )
