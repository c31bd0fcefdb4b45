"""Transformer pieces shared by the text encoders: attention in two forms, feed-forward, blocks."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cf_encoders.dropout import Dropout, drop

FEW_ROWS = 64  # with fewer, a layer of 60 M weights takes less time in float32 than copying them to 16 bits
MARGIN = 1.5  # products of many small matrices run at two thirds of a large one's rate


def attend(
    q: Float[Tensor, "b k m d"],
    k: Float[Tensor, "b k n d"],
    v: Float[Tensor, "b k n d"],
    mask: Bool[Tensor, "b n"],
    dropout: float = 0.0,
) -> Float[Tensor, "b k m d"]:
    """softmax(q k^T / sqrt(d)) v over the keys where `mask` is True.

    A sample without any key attends to all of them evenly instead of giving NaN.
    """
    bias = _mask_bias(mask, q.dtype)
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias[:, None, None], dropout_p=dropout)
    # on CPU the fused kernel's bfloat16 backward takes twice as long as these two products
    b, heads, _, d = q.shape
    bias = bias[:, None].expand(-1, heads, -1).reshape(b * heads, 1, -1)
    scores = torch.baddbmm(bias, q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), alpha=d**-0.5)
    weights = drop(scores.softmax(dim=-1).to(v.dtype), dropout)
    return torch.bmm(weights, v.flatten(0, 1)).unflatten(0, (b, heads))


def attend_between(
    q: nn.Linear,
    out: nn.Linear,
    x: Float[Tensor, "b m d"],
    k: Float[Tensor, "b n d"],
    v: Float[Tensor, "b n d"],
    mask: Bool[Tensor, "b n"],
    heads: int,
    dropout: float = 0.0,
) -> Float[Tensor, "b m d"]:
    """out(attention of q(x) to the keys k and values v), in whichever of two forms takes less time on this device.

    With few keys it pays to carry q's weights over to the keys and out's to the values, q(x) k^T = x (W_q^T k^T), so
    that the many rows of x meet neither. The result is the same but for rounding.
    """
    if _plain(q) and _plain(out) and _few_keys(x, k, heads):
        return _attend_by_keys(q, out, x, k, v, mask, heads, dropout)
    rows, keys, values = (rearrange(each, "b n (k d) -> b k n d", k=heads) for each in (q(x), k, v))
    return out(rearrange(attend(rows, keys, values, mask, dropout), "b k m d -> b m (k d)"))


def _few_keys(x: Float[Tensor, "b m d"], k: Float[Tensor, "b n d"], heads: int) -> bool:
    """Whether `_attend_by_keys` multiplies so much less that it gains, which 16-bit products are too cheap for."""
    if x.device.type != "cpu" or k.dtype not in (torch.float32, torch.float64):
        return False
    m, n, width = x.shape[1], k.shape[1], x.shape[2]
    by_keys, by_rows = n * (width + heads * m), m * (width + n)  # times 2 b width
    return MARGIN * by_keys < by_rows


def _attend_by_keys(
    q: nn.Linear,
    out: nn.Linear,
    x: Float[Tensor, "b m d"],
    k: Float[Tensor, "b n d"],
    v: Float[Tensor, "b n d"],
    mask: Bool[Tensor, "b n"],
    heads: int,
    dropout: float,
) -> Float[Tensor, "b m d"]:
    """The same with the weights of q and out in the keys and values; heads lie side by side in these."""
    b, n, width = k.shape
    k, v = (rearrange(each, "b n (k d) -> k (b n) d", k=heads) for each in (k, v))
    q_weight = rearrange(q.weight, "(k d) e -> k d e", k=heads)
    out_weight = rearrange(out.weight, "e (k d) -> k d e", k=heads)
    keys = rearrange(torch.bmm(k, q_weight), "k (b n) e -> b e (k n)", b=b)
    values = rearrange(torch.bmm(v, out_weight), "k (b n) e -> b (k n) e", b=b)
    scale = (width // heads) ** -0.5
    # q's bias meets the keys only: a number for each of them
    shift = torch.einsum("kmd,kd->km", k, rearrange(q.bias, "(k d) -> k d", k=heads))
    shift = rearrange(shift, "k (b n) -> b 1 k n", b=b) * scale
    bias = (shift + _mask_bias(mask, shift.dtype)[:, None, None]).flatten(2)
    scores = torch.baddbmm(bias, x, keys, alpha=scale).unflatten(2, (heads, n))
    weights = drop(scores.softmax(dim=-1).to(values.dtype), dropout).flatten(2)
    return torch.baddbmm(out.bias, weights, values)


def _plain(linear: nn.Linear) -> bool:
    """Whether its weights are all there is to it: an adapter or a quantised layer in its place does more."""
    return type(linear) is nn.Linear


def _mask_bias(mask: Bool[Tensor, "b n"], dtype: torch.dtype) -> Float[Tensor, "b n"]:
    """0 for a key that may be read, a score lower than any other for one that may not."""
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill(~mask, torch.finfo(dtype).min)


def readable(mask: Bool[Tensor, "b n"]) -> int:
    """How many leading tokens any sample of the batch may read: the length of its longest caption.

    All n where finding out would wait for a GPU or break a compiled graph, and where a sample has no token (it
    attends evenly to all its padding).
    """
    n = mask.shape[1]
    if mask.device.type != "cpu" or torch.compiler.is_compiling() or not bool(mask.any(dim=1).all()):
        return n
    read = mask.any(dim=0).nonzero()
    return int(read[-1]) + 1 if len(read) else n


def wide_linear(linear: nn.Linear, x: Float[Tensor, "b d"]) -> Float[Tensor, "b e"]:
    """linear(x) where `linear` has very many weights and x few rows; columns that x lacks count as zeros."""
    if not _plain(linear):
        return linear(F.pad(x, (0, linear.in_features - x.shape[1])))
    weight = linear.weight[:, : x.shape[1]] if x.shape[1] < linear.in_features else linear.weight
    if x.device.type != "cpu" or len(x) >= FEW_ROWS:
        return F.linear(x, weight, linear.bias)
    with torch.autocast("cpu", enabled=False):
        return F.linear(x.to(weight.dtype), weight, linear.bias)


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
        k, v = self.kv(context).chunk(2, dim=-1)
        return attend_between(self.q, self.out, x, k, v, mask, self.heads)


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
        self.dropout = Dropout(dropout)

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
        self.dropout = Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "b m d"], context: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b m d"]:
        x = x + self.dropout(self.attention(self.query_norm(x), self.context_norm(context), mask))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
