"""Depth as the training loop sees it, and what is made ready before the first step."""

from dataclasses import dataclass, replace

import torch
from cf_encoders import kl_weight_warning
from jaxtyping import Float
from torch import Tensor

from cf_apps.data.depth_pairs import DepthPairs
from cf_apps.data.depth_sets.by_name import DepthSource, open_depth
from cf_apps.data.depth_sets.normalise import filled
from cf_apps.depth.config import DepthConfig
from cf_apps.depth.losses import depth_losses
from cf_apps.depth.model import NAME, DepthModel, build, to_unit
from cf_apps.depth.scaling import kept_ends, measured
from cf_apps.engine.commands.app import Ready, Setting, begun
from cf_apps.engine.ranks.draws import data_draws, own_rows
from cf_apps.engine.seeds import endless_order
from cf_apps.engine.task import Losses, ModelTask

MEASURED_ON = 256  # depth maps that near and far are measured on
READINGS = 4_000_000  # of them at most; torch sorts no more at once


@dataclass(frozen=True)
class PreparedBatch:
    """pictures in [-1, 1]; x_1; 1 where x_1 is a reading, 0 where it is a guess (None: readings everywhere)."""

    pictures: Float[Tensor, "b 3 h w"]
    x_1: Float[Tensor, "b 1 h w"]
    known: Float[Tensor, "b 1 h w"] | None


@dataclass(frozen=True)
class DepthTask(ModelTask):
    """A DepthModel on pairs. source: what the user calls the data, so that evaluation finds it again."""

    model: DepthModel
    data: DepthPairs
    source: str
    seed: int

    def batch(self, first: int, size: int, rows: range | None = None) -> PreparedBatch:
        """Places first, ..., first + size - 1 of the endless shuffled stream, mirrored at random where that may be."""
        indices = own_rows(endless_order(len(self.data), first, size, self.seed), rows)
        drawn = self.data.batch(indices, data_draws(rows, size, self.seed, first, 2))
        everywhere = bool(drawn.valid.all())
        depth = drawn.depth if everywhere else filled(drawn.depth, drawn.valid)
        device = self.model.device
        x_1 = self.model.config.scaling.to_x_1(depth, drawn.valid).to(device)
        known = None if everywhere else drawn.valid[:, None].to(device).float()
        return PreparedBatch(to_unit(drawn.images, device), x_1, known)

    def losses(self, batch: PreparedBatch, generator: torch.Generator, progress: float) -> Losses:
        return depth_losses(self.model, batch.pictures, batch.x_1, batch.known, generator)


def prepare(config: DepthConfig, setting: Setting) -> Ready:
    """A depth task ready to train. Raises UserError or DataError for what cannot be trained."""
    source = open_depth(setting.data, config.size, setting.seed)
    if config.scaling.is_measured:
        before = begun(setting, NAME)
        kept = (
            None
            if before is None
            else kept_ends(config.scaling, DepthConfig.from_dict(before["config"]).scaling)
        )
        config = replace(config, scaling=kept or measured(config.scaling, _readings(source)))
    model = build(config, setting.device, setting.seed)
    task = DepthTask(model, source.train, source.name, setting.seed)
    return Ready(task, source.skipped.notes(), [*_odd_kl_weight(config), *source.skipped.said()])


def _readings(source: DepthSource) -> Float[Tensor, "n"]:
    """Readings of the first training pairs."""
    batch = source.train.batch(torch.arange(min(MEASURED_ON, len(source.train))))
    readings = batch.depth[batch.valid]
    return readings[:: max(1, len(readings) // READINGS)]


def _odd_kl_weight(config: DepthConfig) -> list[str]:
    """Say so when the weight would let sigma die, or pictures be forgotten, in an x_0 of this size."""
    loss = config.loss
    warning = (
        kl_weight_warning(loss.kl_weight, config.image_ve.latent, loss.kl_form) if loss.kl_weight else None
    )
    return [f"loss.kl_weight: {warning}"] if warning else []
