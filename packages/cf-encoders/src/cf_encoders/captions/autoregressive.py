"""Latent -> caption, a token after the other: slower than `decoder.py`, and each word knows those before it."""

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cf_encoders.captions.decoder import before_end
from cf_encoders.captions.decoder_config import CaptionDecoderConfig
from cf_encoders.captions.latent_reader import LatentReader
from cf_encoders.layers import FeedForward
from cf_encoders.numerics import widen
from cf_encoders.pretrained import Pretrained
from cf_encoders.tokenizer import BOS_ID, EOS_ID, PAD_ID, Tokenizer


class AutoregressiveDecoder(Pretrained, nn.Module, config=CaptionDecoderConfig):
    """latent (b, c, h, w) and the tokens so far, <bos> first, (b, l) -> logits of the token after each, (b, l, v).

    Writing keeps no cache: every step reads all tokens so far again, so a caption of 31 tokens takes the time of about
    fifteen passes over it.
    """

    def __init__(self, config: CaptionDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.reader = LatentReader(config, CausalBlock)
        self.head = nn.Linear(config.width, config.vocabulary)

    def forward(self, latent: Float[Tensor, "b c h w"], so_far: Int[Tensor, "b l"]) -> Float[Tensor, "b l v"]:
        return self.head(self._read(self.reader.patches(latent), so_far))

    def training_logits(
        self,
        latent: Float[Tensor, "b c h w"],
        ids: Int[Tensor, "b l"],
        mask: Bool[Tensor, "b l"],
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "b l v"], Bool[Tensor, "b l"]]:
        """Logits for `ids`, each from the true tokens before it, and the mask itself: all count. Nothing is drawn."""
        bos = torch.full_like(ids[:, :1], BOS_ID)
        return self(latent, torch.cat([bos, ids[:, :-1]], dim=1)), mask

    def length_logits(self, latent: Float[Tensor, "b c h w"]) -> None:
        """None: the caption ends at its <eos>."""

    @torch.no_grad()
    def write(self, latent: Float[Tensor, "b c h w"], beams: int = 1) -> Int[Tensor, "b l"]:
        """The likeliest caption that a search with so many beams finds (1: greedy); padding after <eos>.

        Likeliest by the sum of log-probabilities, without a bonus for length.
        """
        if beams < 1:
            raise ValueError(f"beams must be >= 1, got {beams}")
        b, v = len(latent), self.config.vocabulary
        patches = self.reader.patches(latent).repeat_interleave(beams, dim=0)
        ids = torch.full((b * beams, 1), BOS_ID, device=latent.device)
        score = torch.full((b, beams), -torch.inf, dtype=patches.dtype, device=latent.device)
        # all beams begin alike: only the first may be continued
        score[:, 0] = 0.0
        for _ in range(self.config.max_tokens):
            log_p = rearrange(self._next(patches, ids), "(b k) v -> b k v", b=b)
            score, best = (score[..., None] + log_p).flatten(1).topk(beams, dim=1)
            parent = best // v + beams * torch.arange(b, device=best.device)[:, None]
            ids = torch.cat([ids[parent.flatten()], (best % v).reshape(-1, 1)], dim=1)
            if _ended(ids).all():
                break
        # topk sorts, so that the first beam is the best
        return self._padded(ids[::beams, 1:])

    @torch.no_grad()
    def sample(
        self, latent: Float[Tensor, "b c h w"], temperature: float, generator: torch.Generator | None = None
    ) -> Int[Tensor, "b l"]:
        """Every token drawn with p^(1 / temperature); padding after <eos>. Temperature 0 is `write`."""
        if temperature < 0:
            raise ValueError(f"temperature must be >= 0, got {temperature}; 0 is the greedy caption")
        if temperature == 0:
            return self.write(latent)
        patches = self.reader.patches(latent)
        device = latent.device if generator is None else generator.device
        ids = torch.full((len(latent), 1), BOS_ID, device=latent.device)
        for _ in range(self.config.max_tokens):
            p = (self._next(patches, ids) / temperature).softmax(-1)
            drawn = torch.multinomial(p.to(device), 1, generator=generator).to(ids.device)
            ids = torch.cat([ids, drawn], dim=1)
            if _ended(ids).all():
                break
        return self._padded(ids[:, 1:])

    def generate(self, latent: Float[Tensor, "b c h w"], tokenizer: Tokenizer, beams: int = 1) -> list[str]:
        """The captions of `write`."""
        return tokenizer.decode(self.write(latent, beams))

    def _read(self, patches: Float[Tensor, "b n d"], so_far: Int[Tensor, "b l"]) -> Float[Tensor, "b l d"]:
        # padding comes last and nobody looks ahead: no mask is needed
        mask = torch.ones_like(so_far, dtype=torch.bool)
        return self.reader(self.embedding(so_far), patches, mask)

    def _next(self, patches: Float[Tensor, "b n d"], so_far: Int[Tensor, "b l"]) -> Float[Tensor, "b v"]:
        """Log-probabilities of the next token; after <eos> only padding, at no cost."""
        log_p = widen(self.head(self._read(patches, so_far)[:, -1])).log_softmax(-1)
        only_pad = torch.full_like(log_p, -torch.inf)
        only_pad[:, PAD_ID] = 0.0
        return torch.where(_ended(so_far)[:, None], only_pad, log_p)

    def _padded(self, ids: Int[Tensor, "b l"]) -> Int[Tensor, "b max"]:
        ids = ids.masked_fill(~before_end(ids), PAD_ID)
        return nn.functional.pad(ids, (0, self.config.max_tokens - ids.shape[1]), value=PAD_ID)


class CausalBlock(nn.Module):
    """x + attention(LN x) to oneself and those before; x + feed-forward(LN x)"""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b l d"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, "b l d"]:
        x = x + self.dropout(self.out(self._attend(self.attention_norm(x), mask)))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))

    def _attend(self, x: Float[Tensor, "b l d"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, "b l d"]:
        q, k, v = rearrange(self.qkv(x), "b l (three k d) -> three b k l d", three=3, k=self.heads)
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        ahead = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
        scores = scores.masked_fill(ahead | ~mask[:, None, None], torch.finfo(scores.dtype).min)
        return rearrange(scores.softmax(dim=-1).to(v.dtype) @ v, "b k l d -> b l (k d)")


def _ended(so_far: Int[Tensor, "b l"]) -> Bool[Tensor, "b"]:
    return (so_far == EOS_ID).any(1)
