"""The two residual blocks of DiMR. Both take the gains gamma(t) of their norms as an argument."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from cf_transformer.attention import SelfAttention
from cf_transformer.config import Activation, AttentionKind
from cf_transformer.td_norm import td_rms_norm

ACTIVATION = {"gelu": F.gelu, "silu": F.silu}


class GatedMLP(nn.Module):
    """W_out (act(W_0 x) * W_1 x), all biased; W_0 and W_1 are one product, rows [W_0 | W_1]."""

    def __init__(self, d: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.activation = ACTIVATION[activation]
        self.w_in = nn.Linear(d, 2 * hidden)
        self.w_out = nn.Linear(hidden, d)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Token by token."""
        gate, value = self.w_in(x).chunk(2, dim=-1)
        return self.w_out(self.activation(gate) * value)


class TransformerBlock(nn.Module):
    """x + Attn(TDRMSN(x)), then x + GEGLU(TDRMSN(x))."""

    def __init__(self, d: int, hidden: int, n_heads: int, activation: Activation, attention: AttentionKind):
        super().__init__()
        self.attention = SelfAttention(d, n_heads, attention)
        self.mlp = GatedMLP(d, hidden, activation)

    def forward(self, x: Float[Tensor, "b n d"], gamma: Float[Tensor, "2 b 1 d"]) -> Float[Tensor, "b n d"]:
        """`gamma` holds the gain before the attention and the gain before the MLP."""
        gamma_attention, gamma_mlp = gamma.unbind(0)
        x = x + self.attention(td_rms_norm(x, gamma_attention))
        return x + self.mlp(td_rms_norm(x, gamma_mlp))


class ConvNeXtBlock(nn.Module):
    """x + DWConv(x) without a norm before it, then x + GEGLU(TDRMSN(x))."""

    def __init__(self, d: int, hidden: int, grid: tuple[int, int], kernel_size: int, activation: Activation):
        super().__init__()
        self.grid = grid
        self.depthwise = nn.Conv2d(d, d, kernel_size, padding=kernel_size // 2, groups=d)
        self.mlp = GatedMLP(d, hidden, activation)

    def forward(self, x: Float[Tensor, "b n d"], gamma: Float[Tensor, "1 b 1 d"]) -> Float[Tensor, "b n d"]:
        """`gamma` holds the gain before the MLP; tokens are the cells of the grid, row-major."""
        x = x + self._convolve(x)
        return x + self.mlp(td_rms_norm(x, gamma[0]))

    def _convolve(self, x: Tensor) -> Tensor:
        # tokens seen as (b, d, h, w) are already in channels-last order: no copy on the way in or out
        image = rearrange(x, "b (h w) d -> b d h w", h=self.grid[0]).to(self.depthwise.weight.dtype)
        with torch.autocast("cpu", enabled=False):  # the CPU's depthwise backward is 3 times slower in bf16
            return rearrange(self.depthwise(image), "b d h w -> b (h w) d")
