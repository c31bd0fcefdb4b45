"""Text to image as the training loop sees it."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cf_apps.data.captioned import CaptionedImages
from cf_apps.engine.optim import spared
from cf_apps.engine.progress import Progress
from cf_apps.engine.seeds import endless_order, step_generator
from cf_apps.engine.task import Losses
from cf_apps.t2i.losses import t2i_losses
from cf_apps.t2i.model import T2IModel


@dataclass(frozen=True)
class T2IBatch:
    """captions, x_1 (b, c, h, w), and what the image tower looks at."""

    captions: list[str]
    x_1: Float[Tensor, "b c h w"]
    seen: Float[Tensor, "b k m n"]


@dataclass(frozen=True)
class T2ITask:
    """A T2IModel on captioned images.

    source: what the user calls the data (`shapes`, `emoji`, a path), so that evaluation finds it again.
    latents: x_1 of every image, where encoding anew each step would be slow.
    """

    model: T2IModel
    data: CaptionedImages
    source: str
    seed: int
    latents: Float[Tensor, "n c h w"] | None = None

    @property
    def modules(self) -> nn.ModuleDict:
        return self.model.modules

    @property
    def no_decay(self) -> Collection[str]:
        return spared(self.modules)

    def describe(self) -> dict[str, Any]:
        return self.model.describe() | {"data": self.source}

    def batch(self, first: int, size: int) -> T2IBatch:
        """Places first, ..., first + size - 1 of the endless shuffled stream, each with a drawn phrasing."""
        indices = endless_order(len(self.data), first, size, self.seed)
        drawn = self.data.batch(indices, step_generator("cpu", self.seed, first, 2))
        model = self.model
        x_1 = (
            model.encode_images(drawn.images)
            if self.latents is None
            else self.latents[indices].to(model.device)
        )
        seen = drawn.images.to(model.device).float() / 127.5 - 1 if model.config.needs_images else x_1
        return T2IBatch(drawn.captions, x_1, seen)

    def losses(self, batch: T2IBatch, generator: torch.Generator, progress: float) -> Losses:
        return t2i_losses(self.model, batch.captions, batch.x_1, batch.seen, generator, progress)


def encode_all(
    model: T2IModel, data: CaptionedImages, line: Progress, batch_size: int = 64
) -> Float[Tensor, "n c h w"]:
    """x_1 of every image of a set that fits in memory, on the CPU."""
    parts = []
    for start in range(0, len(data), batch_size):
        indices = torch.arange(start, min(start + batch_size, len(data)))
        parts.append(model.encode_images(data.batch(indices).images).cpu())
        line.show((start + len(indices)) / len(data), f"{start + len(indices)} of {len(data)} images")
    return torch.cat(parts)
