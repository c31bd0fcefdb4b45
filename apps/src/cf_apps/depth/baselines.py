"""What a depth model must beat: its own encoder read directly, and what is known without looking."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cf_apps.data.depth_pairs import DepthPairs
from cf_apps.depth.sample import Sampler
from cf_apps.engine.ranks.spread import own_parts, summed

FITTED_ON = 1024  # training pairs
BATCH = 64


@dataclass(frozen=True)
class Baselines:
    """Two ways to guess depth, fitted on training pairs.

    scale, shift: of the mean of x_0, by least squares over all readings: the encoder alone, without the flow.
    mean_map: (h, w), each pixel's mean depth.
    """

    scale: float
    shift: float
    mean_map: Float[Tensor, "h w"]

    def encoder_alone(self, sampler: Sampler, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b h w"]:
        """scale E[x_0 | picture] + shift"""
        return self.scale * sampler.means(images) + self.shift

    def pixel_mean(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b h w"]:
        """The same map for every picture."""
        return self.mean_map.expand(len(images), -1, -1)


def fitted(sampler: Sampler, train: DepthPairs) -> Baselines:
    """Fit both on the first pairs of a training set, in the scale that the model predicts in.

    Within `spread_over` the ranks share the pairs and add their sums up.
    """
    moments = _Moments(torch.zeros(5, dtype=torch.float64))
    total = torch.zeros(2, *sampler.size, dtype=torch.float64)
    scaling = sampler.model.config.scaling
    count = min(FITTED_ON, len(train))
    with own_parts(count, BATCH) as parts:
        for part in parts:
            batch = train.batch(torch.tensor(part.places))
            depth = scaling.to_depth(scaling.to_x_1(batch.depth, batch.valid))
            moments = moments.with_samples(sampler.means(batch.images)[batch.valid], depth[batch.valid])
            total[0] += torch.where(batch.valid, depth, 0).sum(0)
            total[1] += batch.valid.sum(0)
    total, (scale, shift) = summed(total), _Moments(summed(moments.sums)).line()
    overall = total[0].sum() / total[1].sum().clamp(min=1)
    mean_map = torch.where(total[1] > 0, total[0] / total[1].clamp(min=1), overall)
    return Baselines(scale, shift, mean_map.float())


@dataclass(frozen=True)
class _Moments:
    """Sums of 1, x, y, x^2, x y: all that a least-squares line needs."""

    sums: Float[Tensor, "5"]

    def with_samples(self, x: Float[Tensor, "n"], y: Float[Tensor, "n"]) -> "_Moments":
        x, y = x.double(), y.double()
        return _Moments(self.sums + torch.stack([torch.ones_like(x), x, y, x * x, x * y]).sum(1))

    def line(self) -> tuple[float, float]:
        """(s, t) of least sum (s x + t - y)^2; a constant x gives s = 0."""
        n, x, y, xx, xy = self.sums.tolist()
        variance = n * xx - x * x
        scale = (n * xy - x * y) / variance if variance > 0 else 0.0
        return scale, (y - scale * x) / max(n, 1.0)
