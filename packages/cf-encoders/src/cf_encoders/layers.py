"""Pre-norm transformer pieces shared by the compact and the paper's text encoder."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn


def attend(
    q: Float[Tensor, "b k m d"],
    k: Float[Tensor, "b k n d"],
    v: Float[Tensor, "b k n d"],
    mask: Bool[Tensor, "b n"],
) -> Float[Tensor, "b k m d"]:
    """softmax(q k^T / sqrt(d)) v over the keys where `mask` is True.

    A sample without any key attends to all of them evenly instead of giving NaN.
    """
    bias = torch.zeros(mask.shape, dtype=q.dtype, device=q.device)
    bias = bias.masked_fill(~mask, torch.finfo(q.dtype).min)[:, None, None]
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    # on CPU the fused kernel's bfloat16 backward takes twice as long as these two products
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    return (scores + bias).softmax(dim=-1).to(v.dtype) @ v


class Attention(nn.Module):
    """Multi-head attention of x (b, m, width) to a context (b, n, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "b m d"], context: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b m d"]:
        q = rearrange(self.q(x), "b m (k d) -> b k m d", k=self.heads)
        k, v = rearrange(self.kv(context), "b n (two k d) -> two b k n d", two=2, k=self.heads)
        return self.out(rearrange(attend(q, k, v, mask), "b k m d -> b m (k d)"))


class FeedForward(nn.Module):
    """W_out (SiLU(gate) * value): SwiGLU (Shazeer 2020); SiLU is also the fastest gate in bfloat16 on CPU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.in_ = nn.Linear(width, 2 * hidden)
        self.out = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        gate, value = self.in_(x).chunk(2, dim=-1)
        return self.out(F.silu(gate) * value)


class NeighbourBlock(nn.Module):
    """x + value * SiLU(gate), both from one convolution of LN x over neighbouring tokens (Dauphin et al. 2017).

    Attention has to find out which words are neighbours; this knows, and so learns sooner which adjective goes with
    which noun. Tokens beyond `mask` count as zeros.
    """

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, 2 * width, kernel, padding=kernel // 2)

    def forward(self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        normed = self.norm(x) * mask[..., None]
        value, gate = self.conv(normed.transpose(1, 2)).transpose(1, 2).chunk(2, dim=-1)
        return x + value * F.silu(gate)


class SelfBlock(nn.Module):
    """x + attention(LN x); x + feed-forward(LN x)"""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        normed = self.attention_norm(x)
        x = x + self.dropout(self.attention(normed, normed, mask))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class CrossBlock(nn.Module):
    """x + attention(LN x, LN context); x + feed-forward(LN x)"""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(width)
        self.context_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "b m d"], context: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b m d"]:
        x = x + self.dropout(self.attention(self.query_norm(x), self.context_norm(context), mask))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
