"""L_Enc = CLIP(z_0, z_hat): symmetric InfoNCE with a learned temperature (CrossFlow sec. 4.4.1, app. A)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cf_encoders.gather import Group, whole_batch
from cf_encoders.numerics import clamp_keeping_gradient, widen

MAX_LOG_SCALE = math.log(100.0)
NORM_EPS = 1e-6  # a zero latent then has a zero direction and a finite gradient


class LogScale(nn.Module):
    """The learned inverse temperature, stored as log(1/tau). Give `log_scale()` to `info_nce`.

    Called, it returns log(1/tau) clamped to at most ln 100, as CLIP does. Keep it out of weight decay: decay
    pulls tau towards 1, that is, towards no contrast.
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        if not temperature >= 0.01:
            raise ValueError(f"temperature must be >= 0.01 (logits of at most 100), got {temperature}")
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))

    def forward(self) -> Float[Tensor, ""]:
        return clamp_keeping_gradient(self.log_scale, -math.inf, MAX_LOG_SCALE)


def info_nce(
    z: Float[Tensor, "b *d"],
    target: Float[Tensor, "b *d"],
    log_scale: Float[Tensor, ""],
    group: Group | None = None,
    sizes: Sequence[int] | None = None,
) -> Float[Tensor, ""]:
    """Mean of CE(logits) and CE(logits^T); logits_ij = exp(log_scale) cos(z_i, target_j), truth i = j.

    With a process `group` the negatives are those of all its ranks, which may hold different numbers of pairs, and
    the gradient reaches them. The mean of the ranks' losses is the loss of the whole batch B in one process, and so
    is the mean of their gradients, which is what DDP takes. A rank's logits are (b, B), never (B, B).

    sizes: how many pairs each rank holds, where the caller knows it; else the ranks are asked, see `whole_batch`.
    """
    z, target = directions(z), directions(target)
    batch = whole_batch(z, group, sizes)
    truth = batch.places(z.device)
    scale = widen(log_scale).exp()  # the public code forgets this exp
    z_to_target = F.cross_entropy(products(scale * z, batch.gather(target)), truth, reduction="sum")
    target_to_z = F.cross_entropy(products(scale * target, batch.gather(z)), truth, reduction="sum")
    return batch.mean_weight * (z_to_target + target_to_z) / 2


@torch.no_grad()
def retrieval_accuracy(
    z: Float[Tensor, "b *d"],
    target: Float[Tensor, "b *d"],
    group: Group | None = None,
    sizes: Sequence[int] | None = None,
) -> Float[Tensor, ""]:
    """Share of the z, of all ranks, whose nearest target of the whole batch, by cosine, is their own.

    The same number on every rank of the group. sizes: as for `info_nce`.
    """
    z, target = directions(z), directions(target)
    batch = whole_batch(z, group, sizes)
    nearest = products(z, batch.gather(target)).argmax(dim=1)
    return batch.total((nearest == batch.places(z.device)).sum().float()) / batch.rows


def directions(x: Float[Tensor, "b *d"]) -> Float[Tensor, "b k"]:
    """Each sample flattened and divided by its norm, or by NORM_EPS where the norm is smaller."""
    return F.normalize(widen(x).flatten(1), dim=1, eps=NORM_EPS)


def products(x: Float[Tensor, "b d"], y: Float[Tensor, "n d"]) -> Float[Tensor, "b n"]:
    """x y^T in the precision of x: in bfloat16, as autocast would have it, near cosines come out equal."""
    with torch.autocast(x.device.type, enabled=False):
        return x @ y.T
