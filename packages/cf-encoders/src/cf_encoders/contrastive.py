"""L_Enc = CLIP(z_0, z_hat): symmetric InfoNCE with a learned temperature (CrossFlow sec. 4.4.1, app. A)."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cf_encoders.gather import Group, gather_batch, rank_in
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
) -> Float[Tensor, ""]:
    """Mean of CE(logits) and CE(logits^T); logits_ij = exp(log_scale) cos(z_i, target_j), truth i = j.

    With a process `group` the negatives are those of all its ranks (each with the same b) and the gradient
    reaches them: the mean of the ranks' losses, and of their gradients as DDP takes it, is the loss of the
    whole batch in one process.
    """
    z, target = directions(z), directions(target)
    all_z, all_target = gather_batch(z, group), gather_batch(target, group)
    scale = log_scale.exp()  # the public code forgets this exp
    truth = rank_in(group) * len(z) + torch.arange(len(z), device=z.device)
    z_to_target = F.cross_entropy(scale * z @ all_target.T, truth)
    target_to_z = F.cross_entropy(scale * target @ all_z.T, truth)
    return (z_to_target + target_to_z) / 2


@torch.no_grad()
def retrieval_accuracy(
    z: Float[Tensor, "b *d"], target: Float[Tensor, "b *d"], group: Group | None = None
) -> Float[Tensor, ""]:
    """Share of this rank's z whose nearest target of the whole batch, by cosine, is their own."""
    z, all_target = directions(z), gather_batch(directions(target), group)
    truth = rank_in(group) * len(z) + torch.arange(len(z), device=z.device)
    return ((z @ all_target.T).argmax(dim=1) == truth).float().mean()


def directions(x: Float[Tensor, "b *d"]) -> Float[Tensor, "b k"]:
    """Each sample flattened and divided by its norm, or by NORM_EPS where the norm is smaller."""
    return F.normalize(widen(x).flatten(1), dim=1, eps=NORM_EPS)
