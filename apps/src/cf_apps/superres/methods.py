"""Ways from an enlarged picture to a sharp one: the paper's, and two baselines with the same backbone and data.

All work on latents: `up` is the enlarged low-resolution picture and x_1 the sharp one, both through the codec.

    crossflow   x_0 = up + sigma eps, flow to x_1; nothing else is told to the model      (CrossFlow sec. 5.3, B.3)
    concat      x_0 = eps, flow to x_1; up stands beside x_t as further input channels     (what sec. 5.3 compares with)
    regression  x_1 = up + v(up, 0) in one step, by the mean squared error: the mean of all pictures that fit
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from cf_flowcore import scale_losses
from cf_flowcore.multiscale import weighted_sum
from jaxtyping import Bool, Float
from torch import Tensor

from cf_apps.engine.flow import Backbone, FlowConfig, FlowLoss, SampleConfig, carry, flow_loss
from cf_apps.engine.ranks.draws import draws_of

Latent = Float[Tensor, "b c h w"]
Velocity = Callable[..., Tensor]  # (x, t, is_null) -> v; a backbone, or tiles of one


@dataclass(frozen=True)
class Beside:
    """A backbone that also reads `up`; its answer to that part is cut off: channels (x_t, up) -> (v, ...)."""

    backbone: Backbone
    up: Latent

    def __call__(
        self, x_t: Latent, t: Float[Tensor, "b"], is_null: Bool[Tensor, "b"] | None = None
    ) -> Float[Tensor, "b c h w"]:
        """v(x_t, t | up)"""
        return self.backbone(beside(x_t, self.up), t, is_null)[:, : x_t.shape[1]]

    def scales(
        self, x_t: Latent, t: Float[Tensor, "b"], is_null: Bool[Tensor, "b"] | None = None
    ) -> tuple[Tensor, ...]:
        """The velocity at every scale, low to high."""
        return tuple(v[:, : x_t.shape[1]] for v in self.backbone.scales(beside(x_t, self.up), t, is_null))


def beside(x_t: Latent, up: Latent) -> Float[Tensor, "b e h w"]:
    """(x_t, up) along the channels."""
    return torch.cat([x_t, up.to(x_t.dtype)], dim=1)


def crossflow_loss(
    backbone: Backbone, up: Latent, x_1: Latent, sigma: float, config: FlowConfig, generator: torch.Generator
) -> FlowLoss:
    """L_FM between x_0 = up + sigma eps and x_1."""
    x_0 = up + sigma * draws_of(generator).normal(up) if sigma else up
    return flow_loss(backbone, x_0, x_1, config, generator)


def concat_loss(
    backbone: Backbone, up: Latent, x_1: Latent, sigma: float, config: FlowConfig, generator: torch.Generator
) -> FlowLoss:
    """L_FM between eps and x_1, the backbone reading `up` beside x_t. sigma has no part in it."""
    return flow_loss(Beside(backbone, up), draws_of(generator).normal(x_1), x_1, config, generator)


def regression_loss(
    backbone: Backbone, up: Latent, x_1: Latent, sigma: float, config: FlowConfig, generator: torch.Generator
) -> FlowLoss:
    """|| up + v(up, 0) - x_1 ||^2, summed over the scales as L_FM is. Nothing is drawn."""
    per_scale = scale_losses(backbone.scales(up, torch.zeros_like(up[:, 0, 0, 0])), x_1 - up)
    stats = {"flow_full": per_scale[-1].mean().detach()}
    return FlowLoss(weighted_sum(per_scale, config.scale_weights).mean(), stats)


def crossflow_draw(
    backbone: Velocity, up: Latent, noise: Latent, sigma: float, how: SampleConfig, precision: str
) -> Latent:
    """x_1 from x_0 = up + sigma temperature eps."""
    return carry(backbone, up + sigma * how.temperature * noise, how, precision).x


def concat_draw(
    backbone: Velocity, up: Latent, noise: Latent, sigma: float, how: SampleConfig, precision: str
) -> Latent:
    """x_1 from temperature eps, told `up`."""

    def v(x_t: Tensor, t: Tensor, is_null: Tensor) -> Tensor:
        return backbone(beside(x_t, up), t, is_null)[:, : x_t.shape[1]]

    return carry(v, how.temperature * noise, how, precision, bound=True).x


def regression_draw(
    backbone: Velocity, up: Latent, noise: Latent, sigma: float, how: SampleConfig, precision: str
) -> Latent:
    """up + v(up, 0): one Euler step from t = 0 to 1, whatever `how` says."""
    return carry(backbone, up, replace(how, solver="euler", steps=1, scale=1.0), precision).x


@dataclass(frozen=True)
class Method:
    """inputs: how many latents the backbone reads side by side. loss, draw: with the same arguments for all."""

    inputs: int
    loss: Callable[[Backbone, Tensor, Tensor, float, FlowConfig, torch.Generator], FlowLoss]
    draw: Callable[[Velocity, Tensor, Tensor, float, SampleConfig, str], Tensor]


METHODS = {
    #                    inputs  loss             draw
    "crossflow":  Method(     1, crossflow_loss,  crossflow_draw),
    "concat":     Method(     2, concat_loss,     concat_draw),
    "regression": Method(     1, regression_loss, regression_draw),
}  # fmt: skip
