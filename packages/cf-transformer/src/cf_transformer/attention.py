"""Multi-head self-attention over tokens (DiMR)."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from cf_transformer.config import AttentionKind
from cf_transformer.kernels import attention
from cf_transformer.query_key import QueryKey

Heads = Float[Tensor, "b k n e"]  # n tokens in k heads of width e


def matmul_attention(q: Heads, k: Heads, v: Heads) -> Heads:
    """softmax(q k^T / sqrt(e)) v in plain products; its backward is the faster one in bf16 on CPU."""
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return torch.softmax(logits, dim=-1) @ v


def packed_matmul_attention(qkv: Float[Tensor, "b n 3 k e"]) -> Float[Tensor, "b n k e"]:
    """`matmul_attention` of packed q, k, v."""
    return rearrange(
        matmul_attention(*rearrange(qkv, "b n three k e -> three b k n e")), "b k n e -> b n k e"
    )


ATTENTION = {"sdpa": attention, "matmul": packed_matmul_attention}


class SelfAttention(nn.Module):
    """Full softmax attention: fused q, k, v without bias (rows [q | k | v], head-major), biased output.

    `query_key` is what q and k go through first; None for nothing, as in the paper. `bias` gives q, k, v one (DiT).
    """

    def __init__(
        self,
        d: int,
        n_heads: int,
        kind: AttentionKind,
        query_key: QueryKey | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.attend = ATTENTION[kind]
        self.query_key = query_key
        self.qkv = nn.Linear(d, 3 * d, bias=bias)
        self.out = nn.Linear(d, d)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Every token attends to every token."""
        qkv = rearrange(self.qkv(x), "b n (three k e) -> b n three k e", three=3, k=self.n_heads)
        if self.query_key is not None:
            qkv = self.query_key(qkv)
        return self.out(self.attend(qkv).flatten(-2))
