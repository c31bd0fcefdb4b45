"""Text by cross-attention: what the paper's baseline, which starts from noise, has in place of a text source."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cf_transformer.blocks import TransformerBlock
from cf_transformer.config import AttentionKind
from cf_transformer.td_norm import add_td_rms_norm, td_rms_norm

Queries = Float[Tensor, "b k n e"]
Keys = Float[Tensor, "b k l e"]
Seen = Bool[Tensor, "b 1 1 l"]


def sdpa(q: Queries, k: Keys, v: Keys, seen: Seen) -> Queries:
    """softmax(q k^T / sqrt(e)) v over the keys that are `seen`."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)


def matmul(q: Queries, k: Keys, v: Keys, seen: Seen) -> Queries:
    """The same in plain products."""
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return torch.softmax(logits.masked_fill(~seen, -torch.inf), dim=-1) @ v


MASKED_ATTENTION = {"sdpa": sdpa, "matmul": matmul}


class Text(NamedTuple):
    """What the blocks read. Every row of `seen` is true somewhere."""

    features: Float[Tensor, "b l c"]
    seen: Bool[Tensor, "b l"]


class TextOrNull(nn.Module):
    """The text as it is, or one learned vector in its place: where `is_null`, and where the mask shows no token.

    The vector stands at every position. Attention over equal tokens returns what it returns over one of them.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.null = nn.Parameter(torch.empty(width))

    def forward(
        self, context: Float[Tensor, "b l c"], mask: Bool[Tensor, "b l"] | None, is_null: Bool[Tensor, "b"]
    ) -> Text:
        """In the precision of the weights. `mask` is true where a token is text, false where it is padding."""
        if mask is None:
            mask = torch.ones_like(context[..., 0], dtype=torch.bool)
        absent = (is_null | ~mask.any(dim=1))[:, None]
        features = torch.where(absent[..., None], self.null, context.to(self.null.dtype))
        return Text(features, mask | absent)


class CrossAttention(nn.Module):
    """Every token attends to the text: q without bias, fused k, v of the text without bias (rows [k | v], head-major),
    biased output.
    """

    def __init__(self, d: int, context_width: int, n_heads: int, kind: AttentionKind) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.attend = MASKED_ATTENTION[kind]
        self.q = nn.Linear(d, d, bias=False)
        self.kv = nn.Linear(context_width, 2 * d, bias=False)
        self.out = nn.Linear(d, d)

    def forward(
        self, x: Float[Tensor, "b n d"], features: Float[Tensor, "b l c"], seen: Bool[Tensor, "b l"]
    ) -> Float[Tensor, "b n d"]:
        """Text tokens that are not `seen` have no influence."""
        q = rearrange(self.q(x), "b n (k e) -> b k n e", k=self.n_heads)
        k, v = rearrange(self.kv(features), "b l (two k e) -> two b k l e", two=2, k=self.n_heads)
        read = self.attend(q, k, v, rearrange(seen, "b l -> b 1 1 l"))
        return self.out(rearrange(read, "b k n e -> b n (k e)"))


class CrossAttentionBlock(nn.Module):
    """x + Attn(TDRMSN(x)), then x + CrossAttn(TDRMSN(x), text), then x + GEGLU(TDRMSN(x)).

    Made of the two halves of a TransformerBlock, so that its parameters keep their names.
    """

    def __init__(self, block: TransformerBlock, cross: CrossAttention) -> None:
        super().__init__()
        self.attention = block.attention
        self.cross = cross
        self.mlp = block.mlp

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        gamma: Float[Tensor, "3 b 1 d"],
        features: Float[Tensor, "b l c"],
        seen: Bool[Tensor, "b l"],
    ) -> Float[Tensor, "b n d"]:
        """`gamma` holds the gains before the attention, before the cross-attention and before the MLP."""
        gamma_attention, gamma_cross, gamma_mlp = gamma.unbind(0)
        normed, x = add_td_rms_norm(x, self.attention(td_rms_norm(x, gamma_attention)), gamma_cross)
        normed, x = add_td_rms_norm(x, self.cross(normed, features, seen), gamma_mlp)
        return x + self.mlp(normed)
