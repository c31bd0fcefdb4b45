"""The hand-over from one stage to the next, streamed.

DiMR concatenates all N + 1 feature maps of the lower stage (67,584 channels for the 951M model), applies a
TD-LN over all of them and a linear projection W. Normalisation and projection commute up to two scalars per
token, the mean m and the deviation s over all channels, so the sum can be taken while the maps arrive:

    W (gamma (x - m) / s + beta) = (sum_l W_l (gamma_l x_l) - m W gamma) / s + W beta
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from cf_transformer.kernels.reference import LAYER_NORM_EPS
from cf_transformer.position import pixel_shuffle
from cf_transformer.td_norm import TDLayerNorm, Time, TimeLerp


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
        self, maps: Iterable[Float[Tensor, "b n d"]], t: Time
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b m e"]]:
        """Consume the lower stage's maps. Returns its last map and the (b, ratio^2 n, d_high) hand-over."""
        gamma, beta = self.gain(t), self.shift(t)
        weight = self.project.weight.to(product_dtype(self.project.weight))
        n_maps = len(gamma)
        last = total = first = second = gamma.new_zeros(())  # sums over the maps, in fp32
        for x, weight_l, gamma_l in zip(maps, weight.split(self.d_low, dim=1), gamma.unbind(0), strict=True):
            product, mean, square = _share_of_map(x, gamma_l, weight_l)
            last, total, first, second = x, total + product, first + mean, second + square
        mean = first / n_maps
        variance = (second / n_maps - mean.square()).clamp(min=0)
        normed = (total - mean * self._project(gamma)) * torch.rsqrt(variance + LAYER_NORM_EPS)
        projected = normed + (self._project(beta) + self.project.bias)
        opened = pixel_shuffle(projected.to(last.dtype), self.ratio, self.grid)
        return last, self.norm(opened, t)

    def _project(self, vector: Float[Tensor, "l b 1 d"]) -> Float[Tensor, "b 1 e"]:
        weight = self.project.weight
        return F.linear(rearrange(vector, "l b 1 d -> b 1 (l d)").to(weight.dtype), weight)


def product_dtype(weight: Tensor) -> torch.dtype:
    """The precision that a product with `weight` has here: autocast's where it is on, else the weight's own."""
    kind = weight.device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if on else weight.dtype


Share = tuple[Float[Tensor, "b n e"], Float[Tensor, "b n 1"], Float[Tensor, "b n 1"]]


def _share_of_map(
    x: Float[Tensor, "b n d"], gamma: Float[Tensor, "b 1 d"], weight: Float[Tensor, "e d"]
) -> Share:
    """W_l (gamma_l x_l), and each token's mean and mean square of x_l."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # a compiler recomputes by itself
        return _ShareOfMap.apply(x, gamma, weight)
    return _share(x, gamma, weight)


def _share(x: Tensor, gamma: Tensor, weight: Tensor) -> Share:
    wide = x.to(gamma.dtype)
    product = F.linear((gamma * wide).to(weight.dtype), weight)
    return product, wide.mean(-1, keepdim=True), wide.square().mean(-1, keepdim=True)


class _ShareOfMap(torch.autograd.Function):
    """`_share` that keeps x, gamma and W for its backward pass, and nothing computed from them.

    Those three are alive anyway. Autograd would keep x in fp32 and gamma x, for every map: the concatenation again,
    only in pieces.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, gamma: Tensor, weight: Tensor) -> Share:
        return _share(x, gamma, weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Share) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(
        ctx: Any, d_product: Tensor, d_mean: Tensor, d_square: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        x, gamma, weight = ctx.saved_tensors
        wide, d_product = x.to(gamma.dtype), d_product.to(weight.dtype)
        d_scaled = (d_product @ weight).to(gamma.dtype)
        d_x = d_scaled * gamma + (d_mean + 2 * d_square * wide) / x.shape[-1]
        d_gamma = (d_scaled * wide).sum(dim=1, keepdim=True)
        d_weight = torch.einsum("bne,bnd->ed", d_product, (gamma * wide).to(weight.dtype))
        return d_x.to(x.dtype), d_gamma, d_weight

    @staticmethod
    def jvp(ctx: Any, d_x: Tensor, d_gamma: Tensor, d_weight: Tensor) -> Share:
        x, gamma, weight = ctx.saved_tensors
        wide, d_wide = x.to(gamma.dtype), d_x.to(gamma.dtype)
        d_scaled = (d_gamma * wide + gamma * d_wide).to(weight.dtype)
        d_product = F.linear(d_scaled, weight) + F.linear((gamma * wide).to(weight.dtype), d_weight)
        return d_product, d_wide.mean(-1, keepdim=True), 2 * (wide * d_wide).mean(-1, keepdim=True)
