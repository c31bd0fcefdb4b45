"""The text encoder of the authors' public code, structure and module names alike, so its weights load.

Eleven post-norm layers, three that halve the width, then all 77 tokens flattened into one projection: a
linear layer at 256 px, an MLP and three convolutions at 512 px. Padding keys are masked; padding *queries*
are not, and take part in the flat projection, so the content of padded tokens changes the result.
"""

import math

from jaxtyping import Bool, Float
from torch import Tensor, nn

from cf_encoders.dropout import Dropout, add_dropped
from cf_encoders.layers import attend_between, readable, wide_linear
from cf_encoders.std_layer_norm import StdLayerNorm
from cf_encoders.text_ve_config import TextVEConfig

FFN_HIDDEN = 1024
ADAPTOR_WIDTH = 4096  # viewed as one channel of 64 x 64
ADAPTOR_SIDE = 64
RESIDUAL_DROPOUT = 0.1  # fixed there: the config's dropout governs attention and feed-forward only


class ReleasedBody(nn.Module):
    """tokens (b, 77, 768 or 4096) -> mean and logvar (b, 2, c, h, w), or the mean only (b, 1, c, h, w).

    A 64 x 64 latent takes the adaptor, others a Linear. Keys and values are made of the tokens that a mask lets
    someone read, and of no others.
    """

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
        self.adaptor = Adaptor(flat, config.moments * config.latent[0]) if large else None
        self.linear = None if large else nn.Linear(flat, config.moments * math.prod(config.latent))

    def forward(
        self, tokens: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b moments c h w"]:
        x = tokens if self.compressor is None else self.compressor(tokens)
        mask = mask[:, : readable(mask)]
        for layer in self.layers:
            x = layer(x, mask)
        for layer in self.reduction_layers:
            x = layer(x, mask)
        flat = x.flatten(1)
        if self.linear is None:
            assert self.adaptor is not None
            moments = self.adaptor(flat)
        else:
            moments = wide_linear(self.linear, flat)
        return moments.unflatten(1, (-1, *self.latent))


class PostNormLayer(nn.Module):
    """LN(x + attention(x)), then LN(x + feed-forward(x)). `mask` is that of the first n of m tokens."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attn = ReleasedAttention(width, heads, dropout)
        self.feed_forward = ReleasedFeedForward(width, dropout)
        self.norm1, self.norm2 = StdLayerNorm(width), StdLayerNorm(width)

    def forward(self, x: Float[Tensor, "b m d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b m e"]:
        p = RESIDUAL_DROPOUT if self.training else 0.0
        x = self.norm1(add_dropped(x, self.attn(x, mask), p))
        return self.norm2(add_dropped(x, self.feed_forward(x), p))


class ReductionLayer(PostNormLayer):
    """A post-norm layer followed by a Linear that halves the width."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__(width, heads, dropout)
        self.reduction = nn.Linear(width, width // 2)

    def forward(self, x: Float[Tensor, "b m d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b m e"]:
        return self.reduction(super().forward(x, mask))


class ReleasedAttention(nn.Module):
    """Multi-head attention of m tokens to the first n of them; the others are read by no one."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.W_Q, self.W_K = nn.Linear(width, width), nn.Linear(width, width)
        self.W_V, self.W_O = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b m d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b m d"]:
        context = x[:, : mask.shape[1]]
        k, v = self.W_K(context), self.W_V(context)
        dropout = self.dropout if self.training else 0.0
        return attend_between(self.W_Q, self.W_O, x, k, v, mask, self.heads, dropout)


class ReleasedFeedForward(nn.Module):
    """Linear, ReLU, Linear, with the same hidden width at every layer width."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.ffn_1, self.ffn_2 = nn.Linear(width, FFN_HIDDEN), nn.Linear(FFN_HIDDEN, width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return self.ffn_2(self.dropout(self.ffn_1(x).relu_()))


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
        x = self.ln_fc1(wide_linear(self.fc1, flat)).relu()
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
