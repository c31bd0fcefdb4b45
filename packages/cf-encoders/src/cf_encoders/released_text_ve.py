"""The text encoder of the authors' public code, structure and module names alike, so its weights load.

Eleven post-norm layers, three that halve the width, then all 77 tokens flattened into one projection: a
linear layer at 256 px, an MLP and three convolutions at 512 px. Padding keys are masked; padding *queries*
are not, and take part in the flat projection, so the content of padded tokens changes the result.
"""

import math

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cf_encoders.text_ve_config import TextVEConfig

FFN_HIDDEN = 1024
ADAPTOR_WIDTH = 4096  # viewed as one channel of 64 x 64
ADAPTOR_SIDE = 64
RESIDUAL_DROPOUT = 0.1  # fixed there: the config's dropout governs attention and feed-forward only
MASKED_SCORE = {torch.float32: -1e9, torch.float64: -1e9, torch.bfloat16: -1e4, torch.float16: -1e4}


class ReleasedBody(nn.Module):
    """tokens (b, 77, 768 or 4096) -> (b, 2, c, h, w). A 64 x 64 latent takes the adaptor, others a Linear."""

    def __init__(self, config: TextVEConfig) -> None:
        super().__init__()
        width, flat = config.width, config.max_tokens * config.bottleneck
        self.latent = config.latent
        self.compressor = None if config.token_width == width else Compressor(config.token_width, width)
        self.layers = nn.ModuleList(
            PostNormLayer(width, config.heads, config.dropout) for _ in range(config.depth)
        )
        self.reduction_layers = nn.ModuleList(
            ReductionLayer(wider, config.heads, config.dropout)
            for wider in _halvings(width, config.bottleneck)
        )
        large = config.latent[1:] == (ADAPTOR_SIDE, ADAPTOR_SIDE)
        self.adaptor = Adaptor(flat, 2 * config.latent[0]) if large else None
        self.linear = None if large else nn.Linear(flat, 2 * math.prod(config.latent))

    def forward(
        self, tokens: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b 2 c h w"]:
        x = tokens if self.compressor is None else self.compressor(tokens)
        for layer in self.layers:
            x = layer(x, mask)
        for layer in self.reduction_layers:
            x = layer(x, mask)
        project = self.adaptor or self.linear
        assert project is not None
        return project(x.flatten(1)).unflatten(1, (2, *self.latent))


class PostNormLayer(nn.Module):
    """LN(x + attention(x)), then LN(x + feed-forward(x))."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attn = ReleasedAttention(width, heads, dropout)
        self.feed_forward = ReleasedFeedForward(width, dropout)
        self.norm1, self.norm2 = StdLayerNorm(width), StdLayerNorm(width)
        self.residual_dropout = nn.Dropout(RESIDUAL_DROPOUT)

    def forward(self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        x = self.norm1(x + self.residual_dropout(self.attn(x, mask)))
        return self.norm2(x + self.residual_dropout(self.feed_forward(x)))


class ReductionLayer(PostNormLayer):
    """A post-norm layer followed by a Linear that halves the width."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__(width, heads, dropout)
        self.reduction = nn.Linear(width, width // 2)

    def forward(self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b n e"]:
        return self.reduction(super().forward(x, mask))


class ReleasedAttention(nn.Module):
    """Multi-head self-attention; masked keys get a large negative score rather than minus infinity."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.W_Q, self.W_K = nn.Linear(width, width), nn.Linear(width, width)
        self.W_V, self.W_O = nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        q, k, v = (
            rearrange(linear(x), "b n (k d) -> b k n d", k=self.heads)
            for linear in (self.W_Q, self.W_K, self.W_V)
        )
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        scores = scores.masked_fill(~mask[:, None, None], MASKED_SCORE[scores.dtype])
        weights = self.dropout(scores.softmax(dim=-1)).to(v.dtype)
        return self.W_O(rearrange(weights @ v, "b k n d -> b n (k d)"))


class ReleasedFeedForward(nn.Module):
    """Linear, ReLU, Linear, with the same hidden width at every layer width."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.ffn_1, self.ffn_2 = nn.Linear(width, FFN_HIDDEN), nn.Linear(FFN_HIDDEN, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return self.ffn_2(self.dropout(self.ffn_1(x).relu()))


class StdLayerNorm(nn.Module):
    """g (x - mean) / (std + 1e-5) + b, with the unbiased std and eps outside the root: not nn.LayerNorm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.g, self.b = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        std = x.std(dim=-1, keepdim=True, correction=1)
        return self.g * (x - x.mean(dim=-1, keepdim=True)) / (std + 1e-5) + self.b


class Compressor(nn.Module):
    """Linear, LN, ReLU, Linear: T5's 4096-wide tokens to the encoder's width."""

    def __init__(self, token_width: int, width: int) -> None:
        super().__init__()
        self.fc1, self.ln_fc1 = nn.Linear(token_width, width), nn.LayerNorm(width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n e"]:
        return self.fc2(self.ln_fc1(self.fc1(tokens)).relu())


class Adaptor(nn.Module):
    """A flat vector to channels x 64 x 64: two linear layers, then three convolutions. Returns it flat."""

    def __init__(self, flat: int, channels: int) -> None:
        super().__init__()
        plane = [ADAPTOR_SIDE, ADAPTOR_SIDE]
        self.fc1, self.ln_fc1 = nn.Linear(flat, ADAPTOR_WIDTH), nn.LayerNorm(ADAPTOR_WIDTH)
        self.fc2, self.ln_fc2 = nn.Linear(ADAPTOR_WIDTH, ADAPTOR_WIDTH), nn.LayerNorm(ADAPTOR_WIDTH)
        self.conv1, self.ln_conv1 = (
            nn.Conv2d(1, 32, 3, padding=1),
            nn.LayerNorm([32, *plane]),
        )
        self.conv2, self.ln_conv2 = (
            nn.Conv2d(32, 64, 3, padding=1),
            nn.LayerNorm([64, *plane]),
        )
        self.conv3 = nn.Conv2d(64, channels, 3, padding=1)

    def forward(self, flat: Float[Tensor, "b d"]) -> Float[Tensor, "b e"]:
        x = self.ln_fc1(self.fc1(flat)).relu()
        x = self.ln_fc2(self.fc2(x)).relu().unflatten(1, (1, ADAPTOR_SIDE, ADAPTOR_SIDE))
        x = self.ln_conv1(self.conv1(x)).relu()
        x = self.ln_conv2(self.conv2(x)).relu()
        return self.conv3(x).flatten(1)


def _halvings(width: int, bottleneck: int) -> list[int]:
    """768 -> 96: the widths to halve, [768, 384, 192]."""
    widths, narrower = [], width
    while narrower > bottleneck:
        widths.append(narrower)
        narrower //= 2
    if narrower != bottleneck:
        raise ValueError(f"halving width {width} never gives bottleneck {bottleneck}; use {width // 8}")
    return widths
