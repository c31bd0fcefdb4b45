"""Training the indicator of CrossFlow section 4.3: a null sample is led to any *other* sample of the data."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cf_flowcore.draw import Device, permutation, uniform_numbers
from cf_flowcore.global_batch import gathered, own_slice, ranks, shared
from cf_flowcore.path import expand_like


def draw_null(
    b: int, rate: float = 0.1, *, generator: torch.Generator | None = None, device: Device = None
) -> Bool[Tensor, "b"]:
    """is_null (b,): each sample null with probability `rate`, independently, whatever the batch size."""
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"the null rate is a probability, got {rate}; CrossFlow uses 0.1")
    return uniform_numbers(b, generator=generator, device=device) < rate


def null_targets(
    x_1: Float[Tensor, "b *d"],
    is_null: Bool[Tensor, "b"],
    *,
    generator: torch.Generator | None = None,
    across_ranks: bool = True,
) -> Float[Tensor, "b *d"]:
    """x_1 with the rows where `is_null` replaced by another sample's x_1   (z_1^uc, CrossFlow section 4.3)

    The other sample is uniform over the rest of the batch, null or not, and no two null rows share one. x_1
    is not edited. Raises ValueError for a batch of one with a null sample: there is no other sample.

    The batch is the global one where torch.distributed is up, so that small batches on many devices do as one large
    one does. That is a collective: every rank calls it, each with a batch of the same shape, and the circle is rank 0's
    draw. Other ranks' rows carry no gradient. across_ranks=False keeps to this rank's batch.
    """
    if across_ranks and ranks() > 1:
        everyone = gathered(x_1)
        other = shared(random_cycle(len(everyone), generator=generator, device=x_1.device))
        mine = own_slice(len(x_1))
        return torch.where(expand_like(is_null, x_1), everyone[other[mine]], x_1)
    if len(x_1) == 1 and bool(is_null):
        raise ValueError("a null sample needs another sample's x_1, got a batch of 1; use a batch of >= 2")
    other = random_cycle(len(x_1), generator=generator, device=x_1.device)
    return torch.where(expand_like(is_null, x_1), x_1[other], x_1)


def random_cycle(b: int, *, generator: torch.Generator | None, device: Device) -> Int[Tensor, "b"]:
    """A uniform cyclic permutation: other[i] != i for b >= 2, and uniform over the b - 1 other indices.

    The samples stand in a random circle and each takes its neighbour.
    """
    circle = permutation(b, generator=generator, device=device)
    other = torch.empty_like(circle)
    other[circle] = circle.roll(1)
    return other
