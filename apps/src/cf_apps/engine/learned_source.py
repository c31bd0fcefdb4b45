"""A source whose mean is taught by the target itself, while the flow is still young: L_mean, which fades."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from cf_apps.engine.checks import require_weight
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import FlowConfig


@dataclass(frozen=True)
class LearnedSourceConfig(FlowConfig):
    """The flow's own keys and those of L_mean, a term that the paper does not have.

    mean_weight: L_mean regresses the source's mean on x_1, each channel relative to its variance, so that the mean
    becomes a blur of all that the source allows and the flow has a short way. That teaches the encoder fast, but leaves
    little of a source that leaves much open.
    mean_until: the share of the run over which that weight falls to zero, in a straight line; None keeps it.
    """

    mean_weight: float = 0.0
    mean_until: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_weight("mean_weight", self.mean_weight)
        if self.mean_until is not None and not 0.0 < self.mean_until <= 1.0:
            raise ConfigError(f"mean_until must lie in (0, 1] or be null, got {self.mean_until}")

    def mean_weight_at(self, progress: float) -> float:
        """mean_weight at a share of the run, in [0, 1]."""
        fading = 1.0 if self.mean_until is None else max(0.0, 1.0 - progress / self.mean_until)
        return self.mean_weight * fading


def unexplained(
    mean: Float[Tensor, "b c h w"],
    x_1: Float[Tensor, "b c h w"],
    whole: Float[Tensor, "all_b c h w"] | None = None,
) -> Float[Tensor, ""]:
    """L_mean: the share of each channel's variance in the batch that `mean` leaves unexplained, over the channels.

    0 where mean = x_1, 1 where it knows the channel's average and no more. A floor keeps constant channels finite.

    whole: the x_1 of all ranks, where these are only a part of the batch.
    """
    variance = (x_1 if whole is None else whole).var((0, 2, 3), correction=0, keepdim=True).clamp(min=1e-4)
    return ((mean - x_1).square() / variance).mean()
