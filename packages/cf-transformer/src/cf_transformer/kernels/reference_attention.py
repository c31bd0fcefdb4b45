"""Attention and its QK-norm and rotation in plain torch: the maths, the way on a CPU, and the oracle of the kernels."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

QK_NORM_EPS = 1e-6


def reference_attention(qkv: Float[Tensor, "b n 3 k e"]) -> Float[Tensor, "b n k e"]:
    """softmax(q k^T / sqrt(e)) v for k heads of width e by SDPA, in qkv's own precision even under autocast."""
    q, k, v = rearrange(qkv, "b n three k e -> three b k n e")
    with torch.autocast(qkv.device.type, enabled=False):
        return rearrange(F.scaled_dot_product_attention(q, k, v), "b k n e -> b n k e")


def reference_qk_norm_rope(
    qkv: Float[Tensor, "b n 3 k e"],
    cos: Float[Tensor, "n half"],
    sin: Float[Tensor, "n half"],
    gain: Float[Tensor, "2 k"],
) -> Float[Tensor, "b n 3 k e"]:
    """R(n) (gain x / sqrt(mean(x^2) + 1e-6)) for q and k, v as it is; in fp32 at least, returned in qkv's precision.

    R turns the pair (x[j], x[j + e/2]) of token n by the angle whose cosine and sine are cos[n, j] and sin[n, j].
    """
    x = qkv[:, :, :2].to(torch.promote_types(qkv.dtype, torch.float32))
    x = x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + QK_NORM_EPS) * gain[..., None]
    a, z = x.chunk(2, dim=-1)
    c, s = cos[:, None, None], sin[:, None, None]
    turned = torch.cat([a * c - z * s, z * c + a * s], dim=-1).to(qkv.dtype)
    return torch.cat([turned, qkv[:, :, 2:]], dim=2)
