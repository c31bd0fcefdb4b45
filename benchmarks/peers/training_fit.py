"""The engine's own `fit`, observed from within: what a whole step of it takes, and what it holds.

`fit` asks its task for a batch at the start of every step, so the time from one request to the next is a step with all
that belongs to it: losses, backward, clipping, guard, optimizer, average, log. In between others have their turn.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cf_apps.engine.config import FitConfig
from cf_apps.engine.fit import fit
from cf_apps.engine.task import Losses, ModelTask
from cf_apps.t2i.config import T2IConfig
from cf_apps.t2i.encoder_terms import encoder_parts
from cf_apps.t2i.losses import t2i_losses
from cf_apps.t2i.model import T2IModel, build_backbone
from cf_apps.t2i.task import T2IBatch
from cf_encoders import PixelCodec, TextVE, VocabLanguageModel, Vocabulary
from cf_encoders.towers import ReleasedTower, ReleasedTowerConfig
from torch import nn


def model_of(config: T2IConfig, tower: ReleasedTowerConfig | None) -> T2IModel:
    """A fresh model without its frozen parts, for features and latents in memory.

    tower: instead of the config's own.
    """
    torch.manual_seed(0)
    assert config.text_ve is not None
    parts: dict[str, nn.Module] = {
        "text_ve": TextVE(config.text_ve),
        "backbone": build_backbone(config),
        **encoder_parts(config),
    }
    if tower is not None:
        parts["image_tower"] = ReleasedTower(tower)
    # stand-ins: nothing is read or encoded anew
    language, codec = VocabLanguageModel(Vocabulary(["a"]), 1, 2), PixelCodec()
    return T2IModel(config, language, codec, nn.ModuleDict(parts))


class Enough(Exception):
    """Ends a fit without a checkpoint."""


class Observed(ModelTask):
    """Text to image as the training loop sees it, with one batch in memory.

    between: called whenever a step begins, with its number.
    """

    def __init__(self, model: T2IModel, batch: T2IBatch, between: Callable[[int], None]) -> None:
        self.model, self.data, self.source, self.seed = model, [batch], "memory", 0
        self._batch, self._between, self._step = batch, between, 0

    def describe(self) -> dict[str, Any]:
        return {"name": "training benchmark"}

    def batch(self, first: int, size: int, rows: range | None = None) -> T2IBatch:
        """The same always."""
        del first, size, rows
        self._between(self._step)
        self._step += 1
        return self._batch

    def losses(self, batch: T2IBatch, generator: torch.Generator, progress: float) -> Losses:
        assert batch.text is not None
        return t2i_losses(self.model, batch.text, batch.x_1, batch.seen, generator, progress)


def fit_until_enough(
    model: T2IModel, batch: T2IBatch, config: FitConfig, between: Callable[[int], None]
) -> None:
    """Train until `between` raises Enough."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            fit(Observed(model, batch, between), config, Path(folder) / "run")
        except Enough:
            return
