"""Captions through a latent and back: tokens -> TextVE -> q(z | caption) -> z -> decoder -> tokens.

CrossFlow sec. 5.2: captioning flows from image latents to the text latents of such an encoder, and its decoder
reads them out. It is trained before the flow, whose target it fixes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cf_encoders.captions.autoencoder_config import CaptionAutoencoderConfig
from cf_encoders.captions.autoregressive import AutoregressiveDecoder
from cf_encoders.captions.decoder import CaptionDecoder
from cf_encoders.gaussian import DiagonalGaussian
from cf_encoders.numerics import widen
from cf_encoders.pretrained import Pretrained
from cf_encoders.text_ve import TextVE
from cf_encoders.tokenizer import Tokenizer


@dataclass(frozen=True)
class CaptionLosses:
    """`total` is what is minimised; the terms before their weights, and the posterior they came from."""

    total: Float[Tensor, ""]
    cross_entropy: Float[Tensor, ""]  # nats per token that had to be told, <eos> included
    kl: Float[Tensor, ""]  # nats per caption, summed over the latent
    length: Float[Tensor, ""]  # nats per caption; 0 without a length head
    posterior: DiagonalGaussian


class CaptionAutoencoder(Pretrained, nn.Module, config=CaptionAutoencoderConfig):
    """Ids (b, n) and mask of `tokenizer.encode` -> a latent and back. `decoder.write(latent)` gives ids again."""

    def __init__(self, config: CaptionAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.decoder.vocabulary, config.encoder.token_width)
        self.encoder = TextVE(config.encoder)
        self.decoder = DECODERS[config.decoder_kind](config.decoder)

    def encode(self, ids: Int[Tensor, "b n"], mask: Bool[Tensor, "b n"]) -> DiagonalGaussian:
        """q(z | caption)"""
        return self.encoder(self.embedding(ids), mask)

    def losses(
        self,
        ids: Int[Tensor, "b n"],
        mask: Bool[Tensor, "b n"],
        generator: torch.Generator | None = None,
    ) -> CaptionLosses:
        """total = cross_entropy + kl_weight * kl + length_weight * length, of one sampled z.

        Tokens beyond the decoder's max_tokens are neither read back nor counted.
        """
        posterior = self.encode(ids, mask)
        latent = posterior.sample(generator)
        targets, real = self.targets(ids, mask)
        logits, told = self.decoder.training_logits(latent, targets, real, generator)
        cross_entropy = F.cross_entropy(widen(logits[told]), targets[told])
        length = length_loss(self.decoder.length_logits(latent), real)
        kl = posterior.kl().mean()
        total = cross_entropy + self.config.kl_weight * kl + self.config.length_weight * length
        return CaptionLosses(total, cross_entropy, kl, length, posterior)

    def targets(
        self, ids: Int[Tensor, "b n"], mask: Bool[Tensor, "b n"]
    ) -> tuple[Int[Tensor, "b l"], Bool[Tensor, "b l"]]:
        """What the decoder has to write: all but <bos>, which carries nothing."""
        stop = self.config.decoder.max_tokens + 1
        return ids[:, 1:stop], mask[:, 1:stop]

    def reconstruct(
        self,
        captions: Sequence[str],
        tokenizer: Tokenizer,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        **decoding: Any,
    ) -> list[str]:
        """Captions -> sampled latents -> captions. `decoding` goes to the decoder: redo, or beams."""
        ids, mask = tokenizer.encode(captions, self.config.encoder.max_tokens)
        device = self.embedding.weight.device
        with torch.no_grad():
            latent = self.encode(ids.to(device), mask.to(device)).sample(generator, temperature)
        return self.decoder.generate(latent, tokenizer, **decoding)


def length_loss(logits: Float[Tensor, "b l"] | None, mask: Bool[Tensor, "b n"]) -> Float[Tensor, ""]:
    """Cross-entropy of the number of tokens in each mask; class i means i + 1 tokens. 0 without logits."""
    if logits is None:
        return torch.zeros((), device=mask.device)
    return F.cross_entropy(widen(logits), mask.sum(1) - 1)


DECODERS: dict[str, type[CaptionDecoder] | type[AutoregressiveDecoder]] = {
    "parallel": CaptionDecoder,
    "autoregressive": AutoregressiveDecoder,
}
