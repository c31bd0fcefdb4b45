"""The five methods that the Flow Matching paper compares, on one network each: path, loss, and what is predicted."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from cf_flowcore import (
    VP,
    CondOT,
    Path,
    Velocity,
    as_velocity,
    flow_matching_loss,
    noise_matching_loss,
    score_matching_loss,
)
from torch import Tensor

Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class Method:
    """One row of the paper's tables. predicts: what the network's output is, in the words of `convert`."""

    path: Path
    loss: Loss
    predicts: str

    def field(self, net: Velocity) -> Velocity:
        """The velocity to sample with."""
        return (
            net
            if self.predicts == "velocity"
            else as_velocity(net, self.predicts, path=self.path, check=False)
        )

    @property
    def t_max(self) -> float:
        """Where sampling ends: 1, or just before it for diffusion."""
        return self.path.t_max


METHODS = {
    "DDPM": Method(VP(), noise_matching_loss, "noise"),
    "Score Matching": Method(VP(), partial(score_matching_loss, weight="sm"), "score"),
    "ScoreFlow": Method(VP(), partial(score_matching_loss, weight="scoreflow"), "score"),
    "FM w/ Diffusion": Method(VP(), flow_matching_loss, "velocity"),
    "FM w/ OT": Method(CondOT(gaussian_source=True), flow_matching_loss, "velocity"),
}
