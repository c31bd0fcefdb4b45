"""Super-resolution as the training loop sees it, and what is made ready before the first step."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cf_apps.data.picture_sets import Pictures, PictureSet, open_pictures
from cf_apps.engine.codecs import fitted, with_constants_of
from cf_apps.engine.commands.app import Ready, Setting, begun
from cf_apps.engine.ranks.draws import own_rows
from cf_apps.engine.seeds import endless_order
from cf_apps.engine.task import Losses, ModelTask
from cf_apps.superres.config import SuperResConfig
from cf_apps.superres.degrade import shrunk
from cf_apps.superres.model import NAME, SuperResModel, build

CODEC_SAMPLE = 2_048  # pictures that a codec's constants are measured on


@dataclass(frozen=True)
class SuperResBatch:
    """up, x_1: the enlarged and the sharp pictures, through the codec."""

    up: Float[Tensor, "b c h w"]
    x_1: Float[Tensor, "b c h w"]


@dataclass(frozen=True)
class SuperResTask(ModelTask):
    """A SuperResModel on pictures. source: what the user calls them, so that evaluation finds them again."""

    model: SuperResModel
    data: PictureSet
    source: str
    seed: int

    def batch(self, first: int, size: int, rows: range | None = None) -> SuperResBatch:
        """Places first, ..., first + size - 1 of the endless shuffled stream; the small pictures are made here."""
        pictures = self.data.batch(own_rows(endless_order(len(self.data), first, size, self.seed), rows))
        small = shrunk(pictures, self.model.config.factor)
        return SuperResBatch(self.model.encode_enlarged(small), self.model.encode(pictures))

    def losses(self, batch: SuperResBatch, generator: torch.Generator, progress: float) -> Losses:
        config = self.model.config
        flow = self.model.method.loss(
            self.model.backbone, batch.up, batch.x_1, config.source_noise, config.loss, generator
        )
        return Losses({"flow": (1.0, flow.loss)}, flow.stats)


def prepare(config: SuperResConfig, setting: Setting) -> Ready:
    """A super-resolution task ready to train. Raises UserError or DataError for what cannot be trained."""
    source = open_pictures(setting.data, config.image_size, setting.seed)
    if (before := begun(setting, NAME)) is not None:
        earlier = SuperResConfig.from_dict(before["config"])
        config = replace(config, codec=with_constants_of(config.codec, earlier.codec))
    if config.codec.name == "patch-dct" and config.codec.mean is None:
        first = torch.arange(min(CODEC_SAMPLE, len(source.train)))
        config = replace(config, codec=fitted(config.codec, source.train.batch(first)))
    model = build(config, setting.device, setting.seed)
    return Ready(SuperResTask(model, source.train, source.name, setting.seed), _notes(source), _said(source))


def _said(source: Pictures) -> list[str]:
    size = source.train.image_size
    dropped = f"{source.too_small} pictures were dropped, a side of theirs is shorter than {size} pixels"
    return [*source.skipped.said(), *([dropped] if source.too_small else [])]


def _notes(source: Pictures) -> list[dict[str, Any]]:
    """What the run's log says of pictures that could not be used; nothing where all could."""
    dropped = {"event": "dropped for their size", "too_small": source.too_small}
    return [*source.skipped.notes(), *([dropped] if source.too_small else [])]
