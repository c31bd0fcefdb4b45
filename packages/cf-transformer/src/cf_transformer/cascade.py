"""The hand-over from one stage to the next, streamed (specs 2.1 and 9, P1-8).

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
        last = total = gamma.new_zeros(())  # the sum over maps stays in fp32
        moments = []
        for x, weight, gamma_l in zip(maps, weights, gamma.unbind(0), strict=True):
            last, x = x, x.to(gamma.dtype)
            total = total + F.linear(gamma_l * x, weight)
            moments.append(torch.var_mean(x, dim=-1, correction=0, keepdim=True))
        mean, deviation = pooled_moments(moments)
        w_gamma, w_beta = self._project(gamma), self._project(beta)
        projected = (total - mean * w_gamma) / deviation + (w_beta + self.project.bias)
        return last, self.norm(pixel_shuffle(projected, self.ratio, self.grid), t)

    def _project(self, vector: Float[Tensor, "l b 1 d"]) -> Float[Tensor, "b 1 e"]:
        return F.linear(rearrange(vector, "l b 1 d -> b 1 (l d)"), self.project.weight)


def pooled_moments(moments: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean and layer-norm deviation sqrt(var + eps) of equally long parts, from each part's (var, mean).

    The variance of the whole is the mean of the variances plus the variance of the means, which does not
    cancel as E[x^2] - E[x]^2 does.
    """
    variances, means = (torch.stack(parts) for parts in zip(*moments, strict=True))
    variance = variances.mean(0) + means.var(0, correction=0)
    return means.mean(0), torch.sqrt(variance + LAYER_NORM_EPS)
