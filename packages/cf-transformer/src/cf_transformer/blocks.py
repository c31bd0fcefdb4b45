"""The two residual blocks of DiMR. Both take the gains gamma(t) of their norms as an argument."""

from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from cf_transformer.attention import SelfAttention
from cf_transformer.config import Activation, AttentionKind
from cf_transformer.kernels import linear_geglu
from cf_transformer.kernels.reference import gated_linear
from cf_transformer.query_key import QueryKey
from cf_transformer.td_norm import add_td_rms_norm, td_rms_norm

GATE = {"gelu": linear_geglu, "silu": partial(gated_linear, activation=F.silu)}


class GatedMLP(nn.Module):
    """W_out (act(W_0 x) * W_1 x), all biased; W_0 and W_1 are one parameter, rows [W_0 | W_1]; gelu is exact."""

    def __init__(self, d: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.gate = GATE[activation]
        self.w_in = nn.Linear(d, 2 * hidden)
        self.w_out = nn.Linear(hidden, d)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Token by token."""
        return self.w_out(self.gate(x, self.w_in.weight, self.w_in.bias))


class TransformerBlock(nn.Module):
    """x + Attn(TDRMSN(x)), then x + GEGLU(TDRMSN(x))."""

    def __init__(
        self,
        d: int,
        hidden: int,
        n_heads: int,
        activation: Activation,
        attention: AttentionKind,
        query_key: QueryKey | None = None,
    ):
        super().__init__()
        self.attention = SelfAttention(d, n_heads, attention, query_key)
        self.mlp = GatedMLP(d, hidden, activation)

    def forward(self, x: Float[Tensor, "b n d"], gamma: Float[Tensor, "2 b 1 d"]) -> Float[Tensor, "b n d"]:
        """`gamma` holds the gain before the attention and the gain before the MLP."""
        gamma_attention, gamma_mlp = gamma.unbind(0)
        normed, x = add_td_rms_norm(x, self.attention(td_rms_norm(x, gamma_attention)), gamma_mlp)
        return x + self.mlp(normed)


class ConvNeXtBlock(nn.Module):
    """x + DWConv(x) without a norm before it, then x + GEGLU(TDRMSN(x))."""

    def __init__(self, d: int, hidden: int, grid: tuple[int, int], kernel_size: int, activation: Activation):
        super().__init__()
        self.grid = grid
        self.depthwise = nn.Conv2d(d, d, kernel_size, padding=kernel_size // 2, groups=d)
        self.mlp = GatedMLP(d, hidden, activation)

    def forward(self, x: Float[Tensor, "b n d"], gamma: Float[Tensor, "1 b 1 d"]) -> Float[Tensor, "b n d"]:
        """`gamma` holds the gain before the MLP; tokens are the cells of the grid, row-major."""
        normed, x = add_td_rms_norm(x, self._convolve(x), gamma[0])
        return x + self.mlp(normed)

    def _convolve(self, x: Tensor) -> Tensor:
        # tokens seen as (b, d, h, w) are already in channels-last order: no copy on the way in or out
        image = rearrange(x, "b (h w) d -> b d h w", h=self.grid[0]).to(self.depthwise.weight.dtype)
        with torch.autocast("cpu", enabled=False):  # the CPU's depthwise backward is 3 times slower in bf16
            return rearrange(self.depthwise(image), "b d h w -> b (h w) d")
