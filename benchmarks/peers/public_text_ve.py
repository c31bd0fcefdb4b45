"""The public code's text encoder as the public code runs it, written anew from its description: the thing to be
compared with.

The same function, names and weights as `cf_encoders.TextVE` of kind `released`, by other means:

    attention   three products for q, k, v; the whole score matrix, divided, filled where keys are padding, softmax,
                dropout, each an operation of its own; also for keys that no one reads
    norm        mean, unbiased std, difference, quotient, gain and shift, each an operation of its own
    dropout     in attention and feed-forward by config, on the residuals always 0.1

No figure of it is a figure of the public code itself.
"""

import math

import torch
from cf_encoders import TextVE, TextVEConfig
from torch import Tensor, nn

RESIDUAL_DROPOUT = 0.1
NORM_EPS = 1e-5


class Norm(nn.Module):
    """g (x - mean) / (std + eps) + b, the std unbiased."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.g, self.b = nn.Parameter(torch.ones(d)), nn.Parameter(torch.zeros(d))

    def forward(self, x: Tensor) -> Tensor:
        """Six passes over x."""
        mean = x.mean(-1, keepdim=True)
        std = x.std(-1, keepdim=True)
        return self.g * (x - mean) / (std + NORM_EPS) + self.b


class Attention(nn.Module):
    """Multi-head self-attention over all keys."""

    def __init__(self, d: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.W_Q, self.W_K, self.W_V, self.W_O = (nn.Linear(d, d) for _ in range(4))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(b, n, d) to the same."""
        b, n, d = x.shape
        q, k, v = (
            linear(x).view(b, n, self.n_heads, -1).transpose(1, 2)
            for linear in (self.W_Q, self.W_K, self.W_V)
        )
        scores = torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(d // self.n_heads)
        large = -1e9 if scores.dtype in (torch.float32, torch.float64) else -1e4
        scores = scores.masked_fill(~mask[:, None, None, :], large)
        weights = self.dropout(torch.softmax(scores, dim=-1))
        attended = torch.matmul(weights, v.to(weights.dtype))
        return self.W_O(attended.transpose(1, 2).contiguous().view(b, n, d))


class FeedForward(nn.Module):
    """Linear, ReLU, dropout, Linear."""

    def __init__(self, d: int, dropout: float) -> None:
        super().__init__()
        self.ffn_1, self.ffn_2 = nn.Linear(d, 1024), nn.Linear(1024, d)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Token by token."""
        return self.ffn_2(self.dropout(torch.relu(self.ffn_1(x))))


class Layer(nn.Module):
    """Post-norm; a `reduction` layer halves the width afterwards."""

    def __init__(self, d: int, config: TextVEConfig, reduction: bool) -> None:
        super().__init__()
        self.attn = Attention(d, config.heads, config.dropout)
        self.feed_forward = FeedForward(d, config.dropout)
        self.norm1, self.norm2 = Norm(d), Norm(d)
        self.dropout1, self.dropout2 = nn.Dropout(RESIDUAL_DROPOUT), nn.Dropout(RESIDUAL_DROPOUT)
        self.reduction = nn.Linear(d, d // 2) if reduction else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(b, n, d) to the same, or to half the width."""
        x = self.norm1(x + self.dropout1(self.attn(x, mask)))
        x = self.norm2(x + self.dropout2(self.feed_forward(x)))
        return self.reduction(x)


class PublicTextVE(nn.Module):
    """The public way through the weights of a `released` TextVE with a linear tail, which are copied."""

    def __init__(self, model: TextVE) -> None:
        super().__init__()
        config = model.config
        if config.kind != "released" or config.token_width != config.width or config.latent[1:] == (64, 64):
            raise ValueError(
                f"the public way is written for `released` with CLIP's tokens and a linear tail, got {config}"
            )
        d, halvings = config.width, int(math.log2(config.width // config.bottleneck))
        self.latent = config.latent
        self.layers = nn.ModuleList(Layer(d, config, reduction=False) for _ in range(config.depth))
        self.reduction_layers = nn.ModuleList(
            Layer(d // 2**i, config, reduction=True) for i in range(halvings)
        )
        self.linear = nn.Linear(config.max_tokens * config.bottleneck, 2 * math.prod(config.latent))
        state = model.body.state_dict()
        self.to(
            state["linear.weight"].device, state["linear.weight"].dtype
        )  # before the copy, which would round
        self.load_state_dict(state)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """mean and logvar, (b, c, h, w) each."""
        x = tokens
        for layer in (*self.layers, *self.reduction_layers):
            x = layer(x, mask)
        flat = self.linear(x.flatten(1))
        mean, logvar = flat.to(torch.promote_types(flat.dtype, torch.float32)).chunk(2, dim=1)
        return mean.unflatten(1, self.latent), logvar.unflatten(1, self.latent)
