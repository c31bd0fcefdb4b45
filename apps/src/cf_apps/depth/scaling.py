"""Depth as the flow sees it, in [-1, 1], and back."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cf_apps.data.depth_sets.normalise import affine_normalised
from cf_apps.engine.checks import require_known
from cf_apps.engine.errors import ConfigError

AFFINE = "affine"
MEASURED = (
    0.005,
    0.995,
)  # quantiles of the training readings that become near and far where neither is given


@dataclass(frozen=True)
class ScalingConfig:
    """How depth d becomes x_1 in [-1, 1].

        linear    2 (d - near) / (far - near) - 1
        log       2 ln(d / near) / ln(far / near) - 1      equal ratios are equal steps
        affine    each picture's own 2 % and 98 % become -1 and 1; predictions are then known up to scale and shift

    near, far: in the unit of the data, the same for all pictures; what lies outside is clipped. None: measured on the
    training data when a run starts, and kept in its config.json. `affine` has none.
    """

    kind: str = "linear"
    near: float | None = None
    far: float | None = None

    def __post_init__(self) -> None:
        require_known("scaling.kind", self.kind, (*WARPS, AFFINE))
        given = self.near is not None and self.far is not None
        if (self.near is None) != (self.far is None) or (given and self.kind == AFFINE):
            raise ConfigError(
                f"scaling.near and far: give both or none, and none for {AFFINE}; got {self.near}, {self.far}"
            )
        if self.near is not None and self.far is not None:
            least = 0.0 if self.kind == "linear" else math.ulp(0.0)
            if not least <= self.near < self.far < math.inf:
                raise ConfigError(
                    f"scaling needs 0 <= near < far (0 < near for log), got near {self.near}, far {self.far}"
                )

    @property
    def is_metric(self) -> bool:
        """Whether predictions come in the unit of the data."""
        return self.kind != AFFINE

    @property
    def is_measured(self) -> bool:
        """Whether `near` and `far` are still to be measured."""
        return self.is_metric and self.near is None

    def to_x_1(self, depth: Float[Tensor, "b h w"], valid: Bool[Tensor, "b h w"]) -> Float[Tensor, "b 1 h w"]:
        """x_1 of depth maps. What stands where `valid` is False is mapped too and means nothing."""
        if self.kind == AFFINE:
            return affine_normalised(depth, valid)[:, None]
        near, far = self._ends()
        warp, _ = WARPS[self.kind]
        low, high = warp(torch.tensor(near)).item(), warp(torch.tensor(far)).item()
        return (2 * (warp(depth.clamp(near, far)) - low) / (high - low) - 1)[:, None]

    def to_depth(self, x_1: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b h w"]:
        """Depth in the unit of the data; for `affine` (x_1 + 1) / 2, which is right up to scale and shift."""
        share = (x_1[:, 0].clamp(-1, 1) + 1) / 2
        if self.kind == AFFINE:
            return share
        near, far = self._ends()
        warp, back = WARPS[self.kind]
        low, high = warp(torch.tensor(near)).item(), warp(torch.tensor(far)).item()
        return back(low + share * (high - low))

    def _ends(self) -> tuple[float, float]:
        if self.near is None or self.far is None:
            raise ConfigError("scaling.near and far are not measured yet; train measures them, or give both")
        return self.near, self.far


def kept_ends(config: ScalingConfig, earlier: ScalingConfig) -> ScalingConfig | None:
    """near and far of an earlier run, which its weights are tied to; None where it scaled in another way."""
    return earlier if replace(earlier, near=None, far=None) == config else None


def measured(config: ScalingConfig, readings: Float[Tensor, "n"]) -> ScalingConfig:
    """The config with near and far from readings of the training data; ConfigError where they do not span a range."""
    ends = torch.quantile(readings.double(), torch.tensor(MEASURED, dtype=torch.float64)).tolist()
    return ScalingConfig(config.kind, *ends)


def _same(x: Tensor) -> Tensor:
    return x


WARPS: Mapping[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "linear": (_same, _same),
    "log": (torch.log, torch.exp),
}
"""What is made linear in x_1, and its inverse."""
