"""Latent -> caption, all tokens at once (CrossFlow sec. 5.2: captioning is non-autoregressive).

A learned query per position reads the latent, then the other positions. No position knows which word its neighbours
settle on; a second pass tells it: mask-predict (Ghazvininejad et al. 2019) keeps the tokens that the first pass was
sure of and decodes the others again. It was chosen because one network is both passes, trained on drafts with some
tokens hidden at the cost of one; a network that corrects its own draft needs that draft, a second forward, in every
training step.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cf_encoders.captions.decoder_config import CaptionDecoderConfig
from cf_encoders.captions.latent_reader import LatentReader
from cf_encoders.layers import CrossBlock, SelfBlock
from cf_encoders.pretrained import Pretrained
from cf_encoders.tokenizer import EOS_ID, PAD_ID, Tokenizer


class CaptionDecoder(Pretrained, nn.Module, config=CaptionDecoderConfig):
    """latent (b, c, h, w) -> logits (b, l, v) of all l positions at once, <eos> included, <bos> not."""

    def __init__(self, config: CaptionDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.hidden = config.vocabulary  # the id of a token that a draft does not show
        self.embedding = nn.Embedding(config.vocabulary + 1, config.width)
        self.reader = LatentReader(config, SelfBlock)
        self.head = nn.Linear(config.width, config.vocabulary)
        self.length_head = LengthHead(config) if config.predict_length else None

    def forward(
        self,
        latent: Float[Tensor, "b c h w"],
        draft: Int[Tensor, "b l"] | None = None,
        mask: Bool[Tensor, "b l"] | None = None,
    ) -> Float[Tensor, "b l v"]:
        """`draft`: what is known of the caption, `self.hidden` elsewhere; without one, nothing of max_tokens.

        `mask`: the positions within the caption, which alone are looked at; without one, or without a length
        head, which could tell them when there is no caption yet, all are.
        """
        if draft is None:
            draft = self._blank(latent)
        if mask is None or self.length_head is None:
            mask = torch.ones_like(draft, dtype=torch.bool)
        return self.head(self.reader(self.embedding(draft), self.reader.patches(latent), mask))

    def length_logits(self, latent: Float[Tensor, "b c h w"]) -> Float[Tensor, "b l"] | None:
        """Class i means i + 1 tokens, <eos> included; None without a length head."""
        return None if self.length_head is None else self.length_head(self.reader.patches(latent))

    def training_logits(
        self,
        latent: Float[Tensor, "b c h w"],
        ids: Int[Tensor, "b l"],
        mask: Bool[Tensor, "b l"],
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "b l v"], Bool[Tensor, "b l"]]:
        """Logits for a draft of `ids` with tokens hidden at random, and where they were: these are the task."""
        hide = hide_some(mask, generator)
        # beyond the caption there is nothing to know
        draft = ids.masked_fill(hide | ~mask, self.hidden)
        return self(latent, draft, mask), hide

    @torch.no_grad()
    def write(self, latent: Float[Tensor, "b c h w"], redo: float = 0.0) -> Int[Tensor, "b l"]:
        """The likeliest token of each position; padding after the predicted length, or after <eos>.

        `redo`: the share of tokens, the least sure ones, that a second pass decodes again, knowing the others.
        """
        if not 0 <= redo <= 1:
            raise ValueError(f"redo is a share of the tokens, in [0, 1], got {redo}")
        mask = self._predicted_mask(latent)
        confidence, ids = self(latent, self._blank(latent), mask).softmax(-1).max(-1)
        mask = mask & before_end(ids)
        if redo > 0:
            # 0.3 of 10 are 3, whatever the last bit says
            hide = least_sure(confidence, mask, (redo * mask.sum(1) - 1e-4).ceil())
            draft = ids.masked_fill(hide | ~mask, self.hidden)
            ids = torch.where(hide, self(latent, draft, mask).argmax(-1), ids)
        return ids.masked_fill(~mask, PAD_ID)

    def generate(
        self, latent: Float[Tensor, "b c h w"], tokenizer: Tokenizer, redo: float = 0.0
    ) -> list[str]:
        """The captions of `write`."""
        return tokenizer.decode(self.write(latent, redo))

    def _blank(self, latent: Float[Tensor, "b c h w"]) -> Int[Tensor, "b l"]:
        return torch.full((len(latent), self.config.max_tokens), self.hidden, device=latent.device)

    def _predicted_mask(self, latent: Float[Tensor, "b c h w"]) -> Bool[Tensor, "b l"]:
        position = torch.arange(self.config.max_tokens, device=latent.device)
        logits = self.length_logits(latent)
        if logits is None:
            return torch.ones(len(latent), len(position), dtype=torch.bool, device=latent.device)
        return position <= logits.argmax(-1)[:, None]


class LengthHead(nn.Module):
    """One query reads the latent's patches (b, n, width) and says how many tokens the caption has."""

    def __init__(self, config: CaptionDecoderConfig) -> None:
        super().__init__()
        self.query = nn.Parameter(0.5 * torch.randn(1, config.width))
        self.block = CrossBlock(config.width, config.heads, config.mlp_hidden, config.dropout)
        self.norm = nn.LayerNorm(config.width)
        self.linear = nn.Linear(config.width, config.max_tokens)

    def forward(self, patches: Float[Tensor, "b n d"]) -> Float[Tensor, "b l"]:
        every_patch = torch.ones(patches.shape[:2], dtype=torch.bool, device=patches.device)
        x = self.block(self.query.expand(len(patches), -1, -1), patches, every_patch)
        return self.linear(self.norm(x[:, 0]))


def hide_some(mask: Bool[Tensor, "b l"], generator: torch.Generator | None = None) -> Bool[Tensor, "b l"]:
    """Which tokens a training draft hides: all of them in half of the captions, else a share uniform in [0, 1].

    The first pass hides all, so it gets half of the training. At least one token of each caption is hidden.
    """
    device = mask.device if generator is None else generator.device
    share = 2 * torch.rand(len(mask), generator=generator, device=device)
    order = torch.rand(mask.shape, generator=generator, device=device).to(mask.device)
    return least_sure(order, mask, (share.clamp(max=1).to(mask.device) * mask.sum(1)).ceil())


def least_sure(
    confidence: Float[Tensor, "b l"], mask: Bool[Tensor, "b l"], count: Float[Tensor, "b"]
) -> Bool[Tensor, "b l"]:
    """So many positions of each row: the least confident of those in its mask."""
    rank = confidence.masked_fill(~mask, torch.inf).argsort(1).argsort(1)
    return (rank < count[:, None]) & mask


def before_end(ids: Int[Tensor, "b l"]) -> Bool[Tensor, "b l"]:
    """True up to each row's first <eos>, that included."""
    ends = (ids == EOS_ID).cumsum(1)
    return (ends == 0) | ((ends == 1) & (ids == EOS_ID))
