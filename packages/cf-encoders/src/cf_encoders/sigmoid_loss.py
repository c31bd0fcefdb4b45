"""The pairwise sigmoid loss of SigLIP (Zhai et al. 2023, arXiv:2303.15343), in place of InfoNCE.

Every pair is a yes-or-no question of its own, so no sum over the batch stands under a logarithm.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cf_encoders.contrastive import LogScale, directions, products
from cf_encoders.gather import Group, whole_batch
from cf_encoders.numerics import widen


class ScaleAndBias(nn.Module):
    """SigLIP's learned t' = log(1/tau) and b. Give both to the loss: `sigmoid_loss(z, target, *scale_and_bias())`.

    Starts at its 1/tau = 10 and b = -10: of B^2 pairs only B match, and a loss that begins with "no" everywhere does
    not have to unlearn the rest first. The scale is clamped as `LogScale`'s. Keep both out of weight decay.
    """

    def __init__(self, temperature: float = 0.1, bias: float = -10.0) -> None:
        super().__init__()
        self.log_scale = LogScale(temperature)
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(self) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        return self.log_scale(), self.bias


def sigmoid_loss(
    z: Float[Tensor, "b *d"],
    target: Float[Tensor, "b *d"],
    log_scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
    group: Group | None = None,
    sizes: Sequence[int] | None = None,
) -> Float[Tensor, ""]:
    """-1/B sum_ij log sigmoid(y_ij logits_ij); logits_ij = exp(log_scale) cos(z_i, target_j) + bias, y_ii = 1, else -1.

    The sum runs over all B^2 pairs and is divided by B, as SigLIP has it. With a process `group` these are the pairs
    of all its ranks; the mean of the ranks' losses, and of their gradients as DDP takes it, is that of the whole
    batch in one process, also where ranks hold different numbers of pairs. A rank's logits are (b, B).
    sizes: as for `info_nce`.
    """
    z, target = directions(z), directions(target)
    batch = whole_batch(z, group, sizes)
    logits = products(widen(log_scale).exp() * z, batch.gather(target)) + widen(bias)
    own = torch.zeros_like(logits).scatter_(1, batch.places(z.device)[:, None], 1.0)
    return batch.mean_weight * F.binary_cross_entropy_with_logits(logits, own, reduction="sum")
