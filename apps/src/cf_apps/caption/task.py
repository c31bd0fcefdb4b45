"""Captioning as the training loop sees it: pictures, captions that are true of them, the losses of the flow between."""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from cf_encoders import DiagonalGaussian, encoder_losses
from jaxtyping import Float
from torch import Tensor, nn

from cf_apps.caption.model import CaptionModel
from cf_apps.caption.reading import reading_loss, seeing_loss
from cf_apps.caption.sources import drawn_captions
from cf_apps.caption.text import TextModel
from cf_apps.data.captioned import CaptionedImages
from cf_apps.engine.flow import flow_loss
from cf_apps.engine.learned_source import unexplained
from cf_apps.engine.optim import spared
from cf_apps.engine.ranks.draws import data_draws, draws_of, own_rows
from cf_apps.engine.seeds import endless_order
from cf_apps.engine.task import Losses, ModelTask
from cf_apps.engine.watching.progress import Progress


@dataclass(frozen=True)
class CaptionBatch:
    """The codec's latents of pictures, and a caption of each."""

    latent: DiagonalGaussian
    captions: list[str]


@dataclass(frozen=True)
class CaptionTask(ModelTask):
    """A CaptionModel on captioned pictures; the text model is frozen and stays outside what is saved.

    source: what the user calls the data (`shapes`, a path), so that evaluation finds it again.
    latents: those of every picture, where encoding anew each step would be slow.
    """

    model: CaptionModel
    text: TextModel
    data: CaptionedImages
    source: str
    seed: int
    latents: DiagonalGaussian | None = None

    @property
    def no_decay(self) -> Collection[str]:
        """A frozen decoder has no say in it."""
        trained = {
            name: part
            for name, part in self.modules.items()
            if any(p.requires_grad for p in part.parameters())
        }
        return spared(nn.ModuleDict(trained))

    def batch(self, first: int, size: int, rows: range | None = None) -> CaptionBatch:
        """Places first, ..., first + size - 1 of the endless shuffled stream, each with a drawn caption."""
        indices = own_rows(endless_order(len(self.data), first, size, self.seed), rows)
        dice = data_draws(rows, size, self.seed, first, 2)
        if self.latents is None:
            drawn = self.data.batch(indices, dice)
            return CaptionBatch(self.model.encode(drawn.images), drawn.captions)
        mean, logvar = (
            kept[indices].to(self.model.device).float() for kept in (self.latents.mean, self.latents.logvar)
        )
        return CaptionBatch(DiagonalGaussian(mean, logvar), drawn_captions(self.data, indices, dice))

    def losses(self, batch: CaptionBatch, generator: torch.Generator, progress: float) -> Losses:
        """L_FM between picture and caption, and for a learned source its KL and its contrast with the caption."""
        config, draws = self.model.config.loss, draws_of(generator)
        x_1 = self.caption_latents(batch.captions, generator)
        source = self.model.source(batch.latent)
        x_0 = draws.sample(source)
        flow = flow_loss(self.model.backbone, x_0, x_1, config, generator)
        terms = {"flow": (1.0, flow.loss)}
        if config.decoder_weight and progress >= config.decoder_from:
            read = reading_loss(self.model, self.text, batch.captions, x_0, x_1, generator)
            terms["decoder"] = (config.decoder_weight, read)
        if self.model.config.image_ve is None:
            return Losses(terms, flow.stats)
        log_scale = self.modules["log_scale"]()
        learned = encoder_losses(
            source, x_0, target=x_1, log_scale=log_scale, group=draws.group, sizes=draws.sizes
        )
        terms["kl"] = (config.kl_weight, learned.terms["kl"])
        terms["encoder"] = (config.encoder_weight, draws.as_row_mean(learned.terms["contrastive"]))
        if config.mean_weight:
            lost = unexplained(source.mean, x_1, draws.everyone(x_1))
            terms["mean"] = (config.mean_weight_at(progress), lost)
        if config.see_weight and progress >= config.decoder_from:
            seen = seeing_loss(self.model, self.text, batch.captions, source.mean, generator)
            terms["see"] = (config.see_weight, seen)
        return Losses(terms, {**learned.statistics, **flow.stats})

    @torch.no_grad()
    def caption_latents(self, captions: list[str], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
        """x_1: mean or sample of q(z | caption), standardised."""
        posterior = self.text.posterior(captions)
        z = posterior.mean if self.model.config.target == "mean" else draws_of(generator).sample(posterior)
        return self.model.standardised(z.float())


def encode_all(
    model: CaptionModel, data: CaptionedImages, line: Progress, batch_size: int = 64
) -> DiagonalGaussian:
    """The latents of every picture of a set that fits in memory, on the CPU in half precision."""
    means, logvars = [], []
    for start in range(0, len(data), batch_size):
        indices = torch.arange(start, min(start + batch_size, len(data)))
        latent = model.encode(data.batch(indices).images)
        means.append(latent.mean.half().cpu())
        logvars.append(latent.logvar.half().cpu())
        line.show((start + len(indices)) / len(data), f"{start + len(indices)} of {len(data)} pictures")
    return DiagonalGaussian(torch.cat(means), torch.cat(logvars))
