"""Multi-head self-attention over tokens (DiMR)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from cf_transformer.config import AttentionKind

Heads = Float[Tensor, "b k n e"]  # n tokens in k heads of width e


def matmul_attention(q: Heads, k: Heads, v: Heads) -> Heads:
    """softmax(q k^T / sqrt(e)) v in plain products; its backward is the faster one in bf16 on CPU."""
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return torch.softmax(logits, dim=-1) @ v


ATTENTION = {"sdpa": F.scaled_dot_product_attention, "matmul": matmul_attention}


class SelfAttention(nn.Module):
    """Full softmax attention: fused q, k, v without bias (rows [q | k | v], head-major), biased output."""

    def __init__(self, d: int, n_heads: int, kind: AttentionKind) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.attend = ATTENTION[kind]
        self.qkv = nn.Linear(d, 3 * d, bias=False)
        self.out = nn.Linear(d, d)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Every token attends to every token."""
        q, k, v = rearrange(self.qkv(x), "b n (three k e) -> three b k n e", three=3, k=self.n_heads)
        return self.out(rearrange(self.attend(q, k, v), "b k n e -> b n (k e)"))
