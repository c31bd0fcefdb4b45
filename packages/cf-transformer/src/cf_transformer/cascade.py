"""The hand-over from one stage to the next, streamed.

DiMR concatenates all N + 1 feature maps of the lower stage (67,584 channels for the 951M model), applies a
TD-LN over all of them and a linear projection W. Normalisation and projection commute up to two scalars per
token, the mean m and the deviation s over all channels, so the sum can be taken while the maps arrive:

    W (gamma (x - m) / s + beta) = (sum_l W_l (gamma_l x_l) - m W gamma) / s + W beta
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from cf_transformer.position import pixel_shuffle
from cf_transformer.td_norm import LAYER_NORM_EPS, TDLayerNorm, TimeLerp


class Cascade(nn.Module):
    """TD-LN over all maps, Linear, pixel-shuffle by `ratio`, TD-LN: what is added to the next embedding.

    Column of the projection = map * d_low + channel; map 0 is the lower stage's embedding, map i + 1 the
    output of its block i. Row = (row in cell * ratio + column in cell) * d_high + channel.
    """

    def __init__(self, n_maps: int, d_low: int, d_high: int, ratio: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.d_low, self.ratio, self.grid = d_low, ratio, grid
        self.gain = TimeLerp(n_maps, d_low, init=1.0)
        self.shift = TimeLerp(n_maps, d_low, init=0.0)
        self.project = nn.Linear(n_maps * d_low, ratio * ratio * d_high)
        self.norm = TDLayerNorm(d_high)

    def forward(
        self, maps: Iterable[Float[Tensor, "b n d"]], t: Float[Tensor, "b"]
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b m e"]]:
        """Consume the lower stage's maps. Returns its last map and the (b, ratio^2 n, d_high) hand-over."""
        gamma, beta = self.gain(t), self.shift(t)
        weights = self.project.weight.split(self.d_low, dim=1)
        # sums over the maps, in fp32: of the products and of each token's first two moments
        last = total = first = second = gamma.new_zeros(())
        for x, weight, gamma_l in zip(maps, weights, gamma.unbind(0), strict=True):
            last, wide = x, x.to(gamma.dtype)
            total = total + F.linear((gamma_l * wide).to(weight.dtype), weight)
            first = first + wide.mean(-1, keepdim=True)
            second = second + torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square() / self.d_low
        mean = first / len(weights)
        variance = (second / len(weights) - mean.square()).clamp(min=0)
        normed = (total - mean * self._project(gamma)) * torch.rsqrt(variance + LAYER_NORM_EPS)
        projected = normed + (self._project(beta) + self.project.bias)
        opened = pixel_shuffle(projected.to(last.dtype), self.ratio, self.grid)
        return last, self.norm(opened, t)

    def _project(self, vector: Float[Tensor, "l b 1 d"]) -> Float[Tensor, "b 1 e"]:
        weight = self.project.weight
        return F.linear(rearrange(vector, "l b 1 d -> b 1 (l d)").to(weight.dtype), weight)
