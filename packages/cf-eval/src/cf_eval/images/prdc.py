"""Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020) of generated pictures.

Every sample of a set has a ball that reaches to its k-th nearest neighbour within the set. Precision is the share
of generated samples inside some real ball, recall the share of real samples inside some generated one; density
counts in how many real balls a generated sample is, over k, and coverage which real balls hold any.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cf_eval.images.feature_set import FeatureSet
from cf_eval.images.features import Features
from cf_eval.images.two_sets import TwoSets, in_float64
from cf_eval.result import Result

BLOCK = 1000  # rows at a time
# two ways to the same squared distance differ by less than this times the squares it is the difference of
ROUNDING = 1e-12
TIES = {"inside": 1.0, "outside": -1.0}


@dataclass(frozen=True)
class Neighbourhood:
    """k: whose distance is the radius, the sample itself not counted. ties: is a sample at the radius in the ball?

    torch-fidelity and guided-diffusion take k = 3, ties "inside" (<=); the prdc package k as told, ties "outside" (<).
    """

    k: int = 3
    ties: str = "inside"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be at least 1, got {self.k}")
        if self.ties not in TIES:
            raise ValueError(f"unknown ties {self.ties!r}; known: {', '.join(TIES)}")


def prdc(
    real: Float[Tensor, "n d"], generated: Float[Tensor, "m d"], neighbourhood: Neighbourhood
) -> dict[str, float]:
    """The four numbers, by name. Raises ValueError for a set with no k-th neighbour."""
    k = neighbourhood.k
    for name, rows in (("real", real), ("generated", generated)):
        if len(rows) <= k:
            raise ValueError(
                f"the {name} set has {len(rows)} samples; with k = {k} it needs at least {k + 1}"
            )
    centre = real.mean(0)  # distances do not change, and smaller numbers lose fewer digits
    x, y = real - centre, generated - centre
    in_generated = torch.cat([inside.any(1) for inside in _inside(x, y, neighbourhood)])
    balls, covered = [], torch.zeros(len(x), dtype=torch.bool)
    for inside in _inside(y, x, neighbourhood):
        balls.append(inside.sum(1))
        covered |= inside.any(0)
    balls = torch.cat(balls)
    return {
        "precision": float((balls > 0).double().mean()),
        "recall": float(in_generated.double().mean()),
        "density": float(balls.double().mean() / k),
        "coverage": float(covered.double().mean()),
    }


def _inside(
    points: Float[Tensor, "n d"], centres: Float[Tensor, "m d"], neighbourhood: Neighbourhood
) -> Iterator[Bool[Tensor, "i m"]]:
    """Whether each point is in each ball, some points at a time."""
    radii = _squared_radii(centres, neighbourhood.k)
    sign = TIES[neighbourhood.ties]
    for block in points.split(BLOCK):
        slack = ROUNDING * (block.square().sum(1)[:, None] + centres.square().sum(1))
        yield _squared_distances(block, centres) <= radii + sign * slack


def _squared_radii(x: Float[Tensor, "n d"], k: int) -> Float[Tensor, "n"]:
    """To the k-th neighbour; the nearest of all is the sample itself."""
    return torch.cat([_squared_distances(block, x).kthvalue(k + 1).values for block in x.split(BLOCK)])


def _squared_distances(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    squares = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T
    return squares.clamp(min=0)


class PRDC(TwoSets[FeatureSet]):
    """Precision, recall, density and coverage of streams of pictures. Features are kept, 4 d bytes a picture."""

    def __init__(self, features: Features, neighbourhood: Neighbourhood = Neighbourhood()) -> None:
        super().__init__(features, FeatureSet)
        self.neighbourhood = neighbourhood

    def compute(self) -> Result:
        """Raises ValueError while a set has no k-th neighbour."""
        k, ties = self.neighbourhood.k, self.neighbourhood.ties
        self.require_samples(k + 1, f"precision and recall with k = {k}")
        real, generated = in_float64(self.real.features()), in_float64(self.generated.features())
        return Result(
            metric="prdc",
            values=prdc(real, generated, self.neighbourhood),
            protocol=f"{self.features.name}; k = {k}, ties {ties}",
            count=self.generated.count,
            details=self.details(),
        )
