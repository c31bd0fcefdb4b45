"""Text to image as the training loop sees it."""

from dataclasses import dataclass
from typing import Any

import torch
from cf_encoders import TextFeatures
from jaxtyping import Float, UInt8
from torch import Tensor

from cf_apps.data.captioned import CaptionedImages
from cf_apps.data.shards.reading import Shards
from cf_apps.engine.ranks.draws import data_draws, own_rows
from cf_apps.engine.seeds import endless_order
from cf_apps.engine.task import Losses, ModelTask
from cf_apps.engine.watching.progress import Progress
from cf_apps.t2i.losses import t2i_losses
from cf_apps.t2i.model import T2IModel


@dataclass(frozen=True)
class T2IBatch:
    """captions, x_1 (b, c, h, w), and what the image tower looks at.

    text: what the language model makes of the captions, where that was kept (shards).
    """

    captions: list[str]
    x_1: Float[Tensor, "b c h w"]
    seen: Float[Tensor, "b k m n"]
    text: TextFeatures | None = None


@dataclass(frozen=True)
class T2ITask(ModelTask):
    """A T2IModel on captioned images, or on shards of what its frozen parts make of them.

    source: what the user calls the data (`shapes`, `emoji`, a path), so that evaluation finds it again.
    latents: x_1 of every image, where encoding anew each step would be slow.
    """

    model: T2IModel
    data: CaptionedImages | Shards
    source: str
    seed: int
    latents: Float[Tensor, "n c h w"] | None = None

    def batch(self, first: int, size: int, rows: range | None = None) -> T2IBatch:
        """Places first, ..., first + size - 1 of the endless shuffled stream, each with a drawn phrasing."""
        if isinstance(self.data, Shards):
            return self._stored(
                self.data, range(first, first + size) if rows is None else _places(first, rows)
            )
        indices = own_rows(endless_order(len(self.data), first, size, self.seed), rows)
        drawn = self.data.batch(indices, data_draws(rows, size, self.seed, first, 2))
        model = self.model
        x_1 = (
            model.encode_images(drawn.images)
            if self.latents is None
            else self.latents[indices].to(model.device)
        )
        seen = _seen(drawn.images, model.device) if model.config.needs_images else x_1
        return T2IBatch(drawn.captions, x_1, seen)

    def samples(self, first: int, size: int) -> list[Any]:
        """Which samples of the set those places hold, for people who look for a bad one."""
        if isinstance(self.data, Shards):
            return self.data.names(first, size, self.seed)
        return super().samples(first, size)

    def losses(self, batch: T2IBatch, generator: torch.Generator, progress: float) -> Losses:
        read = batch.captions if batch.text is None else batch.text
        return t2i_losses(self.model, read, batch.x_1, batch.seen, generator, progress)

    def _stored(self, shards: Shards, places: range) -> T2IBatch:
        stored, device = shards.stream(places.start, len(places), self.seed), self.model.device
        x_1 = stored.latents.to(device)
        text = stored.text
        if text is not None:
            text = TextFeatures(text.tokens.to(device).float(), text.mask.to(device))  # half as much to move
        seen = x_1
        if self.model.config.needs_images and stored.pictures is not None:
            seen = _seen(stored.pictures, device)
        return T2IBatch(stored.captions, x_1, seen, text)


def _places(first: int, rows: range) -> range:
    return range(first + rows.start, first + rows.stop)


def _seen(pictures: UInt8[Tensor, "b 3 s s"], device: torch.device) -> Float[Tensor, "b 3 s s"]:
    """Bytes as the image tower takes them: [-1, 1]."""
    return pictures.to(device).float() / 127.5 - 1


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
