"""The text side: captions to latents and back, once trained; and the first training itself."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from cf_encoders import CaptionAutoencoder, DiagonalGaussian, Tokenizer
from cf_encoders.captions import AutoregressiveDecoder, CaptionDecoder
from cf_encoders.captions.autoencoder import length_loss
from cf_encoders.tokenizer import SPECIALS
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cf_apps.caption.config import TextConfig
from cf_apps.caption.sources import drawn_captions
from cf_apps.caption.tokens import described, normal_form, restored, sentences
from cf_apps.data.captioned import CaptionedImages
from cf_apps.engine.commands.app import task_run
from cf_apps.engine.ranks.draws import data_draws, draws_of, own_rows
from cf_apps.engine.saving.export import load_into
from cf_apps.engine.seeds import endless_order
from cf_apps.engine.task import Losses, ModelTask

NAME = "caption train-text"  # as the runs are known to the command line
PARTS = ("autoencoder",)
BATCH = 256
Decoder = CaptionDecoder | AutoregressiveDecoder


@dataclass(frozen=True)
class TextModel:
    """A text autoencoder with its tokenizer. modules: `autoencoder`."""

    config: TextConfig
    tokenizer: Tokenizer
    modules: nn.ModuleDict

    @classmethod
    def from_run(cls, run: Path, device: torch.device) -> "TextModel":
        """The averaged weights of a run of `train-text`, frozen. RunError or CheckpointError says what is wrong."""
        tensors, config = task_run(run, NAME)
        task = config["task"]
        model = build(TextConfig.from_dict(task["config"]), restored(task["tokenizer"]), device)
        load_into(model.modules, tensors, str(run))
        model.modules.eval().requires_grad_(False)
        return model

    @property
    def autoencoder(self) -> CaptionAutoencoder:
        return cast(CaptionAutoencoder, self.modules["autoencoder"])

    @property
    def decoder(self) -> Decoder:
        return cast(Decoder, self.autoencoder.decoder)

    @property
    def device(self) -> torch.device:
        return next(self.modules.parameters()).device

    @property
    def max_tokens(self) -> int:
        """The most tokens of a caption that comes back, <bos> and <eos> included."""
        return self.config.autoencoder.decoder.max_tokens + 1

    def tokens(self, captions: Sequence[str]) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b n"]]:
        """Ids and mask; longer captions lose words at their end."""
        ids, mask = self.tokenizer.encode(captions, self.max_tokens)
        return ids.to(self.device), mask.to(self.device)

    def posterior(self, captions: Sequence[str]) -> DiagonalGaussian:
        """q(z | caption)"""
        return self.autoencoder.encode(*self.tokens(captions))

    def read(self, latent: Float[Tensor, "b c h w"]) -> list[str]:
        """Latents -> captions."""
        return sentences(self.tokenizer, self.decoder.write(latent))

    @torch.no_grad()
    def exact(
        self, captions: Sequence[str], generator: torch.Generator | None = None, temperature: float = 0.0
    ) -> float:
        """The share of captions that come back whole from z = mean + temperature * sigma * eps, in normal form."""
        right = 0
        for start in range(0, len(captions), BATCH):
            some = captions[start : start + BATCH]
            back = self.read(self.posterior(some).sample(generator, temperature))
            right += sum(normal_form(self.tokenizer, a) == b for a, b in zip(some, back, strict=True))
        return right / len(captions)

    def too_long(self, captions: Sequence[str]) -> list[int]:
        """Which captions would lose words."""
        return [i for i, text in enumerate(captions) if self.tokenizer.length(text) > self.max_tokens]

    def describe(self) -> dict[str, Any]:
        return {"name": NAME, "config": self.config.to_dict(), "tokenizer": described(self.tokenizer)}


def build(config: TextConfig, tokenizer: Tokenizer, device: torch.device, seed: int = 0) -> TextModel:
    """Fresh modules, their weights drawn from `seed`; the config says how many tokens the tokenizer has."""
    parts = config.autoencoder
    config = replace(
        config, autoencoder=replace(parts, decoder=replace(parts.decoder, vocabulary=len(tokenizer)))
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        autoencoder = CaptionAutoencoder(config.autoencoder)
    return TextModel(config, tokenizer, nn.ModuleDict({"autoencoder": autoencoder}).to(device))


@dataclass(frozen=True)
class TextBatch:
    """A caption of each picture, and another one, or the same, if there are no more."""

    captions: list[str]
    others: list[str]


@dataclass(frozen=True)
class TextTask(ModelTask):
    """A TextModel on the captions of a captioned set; its pictures are not looked at."""

    model: TextModel
    data: CaptionedImages
    source: str
    seed: int

    def batch(self, first: int, size: int, rows: range | None = None) -> TextBatch:
        """Captions first, ..., first + size - 1 of the endless shuffled stream, and another of each picture."""
        indices = own_rows(endless_order(len(self.data), first, size, self.seed), rows)
        captions, others = (
            drawn_captions(self.data, indices, data_draws(rows, size, self.seed, first, k)) for k in (2, 3)
        )
        return TextBatch(captions, others)

    def losses(self, batch: TextBatch, generator: torch.Generator, progress: float) -> Losses:
        """L = cross-entropy + kl_weight KL + length_weight length, of a sampled z (CrossFlow app. B.4)"""
        config, model, draws = self.model.config, self.model.autoencoder, draws_of(generator)
        ids, mask = self.model.tokens(batch.captions)
        ids = replaced(ids, config.replaced, len(self.model.tokenizer), generator)
        posterior = model.encode(ids, mask)
        z = draws.sample(posterior)
        if config.mixed:
            other = draws.sample(self.model.posterior(batch.others))
            share = config.mixed * draws.uniform(len(z), 1, 1, 1)
            z = z + share * (other - z)
        targets, real = model.targets(ids, mask)
        logits, told = self.model.decoder.training_logits(z, targets, real, generator)
        weights, cross_entropy = config.autoencoder, F.cross_entropy(logits[told].float(), targets[told])
        terms = {
            "cross_entropy": (1.0, draws.share_of(told.sum()) * cross_entropy),
            "kl": (weights.kl_weight, posterior.kl().mean()),
            "length": (weights.length_weight, length_loss(self.model.decoder.length_logits(z), real)),
        }
        return Losses(terms, posterior.statistics())


def replaced(
    ids: Int[Tensor, "b n"], share: float, vocabulary: int, generator: torch.Generator
) -> Int[Tensor, "b n"]:
    """Some words replaced by any others, at a rate uniform in [0, 2 share].

    A sentence is to come back as it is, not as sentences usually go on.
    """
    if share == 0:
        return ids
    draws = draws_of(generator)
    rate = 2 * share * draws.uniform(len(ids), 1)
    replace = (draws.uniform(*ids.shape) < rate) & (ids >= len(SPECIALS))
    other = draws.integers(len(SPECIALS), vocabulary, *ids.shape)
    return torch.where(replace, other, ids)
