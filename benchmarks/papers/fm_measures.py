"""What the Flow Matching paper measures of a trained field: likelihood, distance, evaluations, error at few of them."""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from cf_eval import FrechetDistance
from cf_flowcore import Velocity, bits_per_dim, solve
from cf_flowcore.control import I_CONTROL
from fm_features import Classifier
from jaxtyping import Float, UInt8
from torch import Tensor

PAPERS = {
    "method": "dopri5-shampine",
    "control": I_CONTROL,
    "rtol": 1e-5,
    "atol": 1e-5,
}  # torchdiffeq's error and rule
REFERENCE_STEPS = 500  # of midpoint: 1000 evaluations, the truth of figure 7


@dataclass(frozen=True)
class Field:
    """A trained velocity with where it ends, and how many rows it takes at once."""

    v: Velocity
    t_max: float
    chunk: int

    def sample(self, x_0: Float[Tensor, "n *d"], nfe: int) -> Float[Tensor, "n *d"]:
        """The midpoint solution with `nfe` evaluations."""
        return torch.cat(
            [
                solve(self.v, part, t_1=self.t_max, method="midpoint", steps=nfe // 2).x
                for part in x_0.split(self.chunk)
            ]
        )

    def sample_adaptively(self, x_0: Float[Tensor, "n *d"]) -> tuple[Float[Tensor, "n *d"], float]:
        """The dopri5 solution at the paper's tolerances, and its evaluations, averaged over the chunks."""
        ends = [solve(self.v, part, t_1=self.t_max, **PAPERS) for part in x_0.split(self.chunk)]
        return torch.cat([end.x for end in ends]), sum(end.nfe for end in ends) / len(ends)


def bits(
    field: Field, pixels: UInt8[Tensor, "n c h w"], k: int, tolerance: float, generator: torch.Generator
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Bits per dimension of each picture for K = 1 (the mean of k draws) and K = k, and the standard error of one ln p.

    The error is that of the two probes, in nats.
    """
    found = [
        bits_per_dim(
            field.v,
            part,
            importance_samples=k,
            probes=2,
            t_1=field.t_max,
            method="dopri5",
            rtol=tolerance,
            atol=tolerance,
            generator=generator,
        )
        for part in pixels.split(field.chunk)
    ]
    single = torch.cat([it.bits_of_each.mean(0) for it in found])
    return single, torch.cat([it.bits for it in found]), torch.cat([it.probe_std for it in found])


def distance(
    features: Classifier, name: str, real: UInt8[Tensor, "n c h w"], drawn: Float[Tensor, "m c h w"]
) -> float:
    """Fréchet distance in the space of `features`."""
    score = FrechetDistance(features, name)
    for part in real.split(1000):
        score.add_batch(real=part.to(drawn.device))
    for part in drawn.split(1000):
        score.add_batch(generated=part)
    return score.compute().value


def errors_by_nfe(field: Field, x_0: Float[Tensor, "n *d"], nfes: tuple[int, ...]) -> dict[int, float]:
    """Mean squared error per pixel against the solution with 1000 evaluations, both by midpoint   (figure 7, left)"""
    truth = field.sample(x_0, 2 * REFERENCE_STEPS)
    return {nfe: (field.sample(x_0, nfe) - truth).square().mean().item() for nfe in nfes}


def nfe_for_error(errors: dict[int, float], wanted: float) -> float:
    """How many evaluations reach an error: a straight line in logarithms between the measured ones; inf if none do."""
    points = sorted(errors.items())
    if points[0][1] <= wanted:
        return float(points[0][0])
    for (n, e), (n_next, e_next) in pairwise(points):
        if e_next <= wanted < e:
            share = math.log(e / wanted) / math.log(e / e_next)
            return n * (n_next / n) ** share
    return math.inf
