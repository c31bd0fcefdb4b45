"""The batch of all ranks together, where torch.distributed is up; plain Python functions of it."""

import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor


def ranks() -> int:
    """How many processes share the global batch; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def own_slice(b: int) -> slice:
    """Where this rank's b rows stand in the global batch."""
    return slice(dist.get_rank() * b, (dist.get_rank() + 1) * b)


def gathered(x: Float[Tensor, "b *d"]) -> Float[Tensor, "n *d"]:
    """Every rank's rows, in the order of the ranks, without gradients. The shapes must agree.

    Raises ValueError on every rank if they do not: a last batch that is smaller on one rank, say.
    """
    shape = torch.tensor([[*x.shape]], device=x.device)
    shapes = shape.new_empty(ranks(), x.ndim)
    dist.all_gather_into_tensor(shapes, shape)
    found = [tuple(row) for row in shapes.tolist()]  # waits for the device once, however many ranks there are
    if len(set(found)) > 1:
        raise ValueError(
            "a global batch needs the same shape on every rank, got "
            f"{', '.join(map(str, found))}; drop the last, smaller batch"
        )
    everyone = x.new_empty(ranks() * len(x), *x.shape[1:])
    dist.all_gather_into_tensor(everyone, x.detach().contiguous())
    return everyone


def shared(x: Shaped[Tensor, "*d"]) -> Shaped[Tensor, "*d"]:
    """Rank 0's values, on every rank."""
    x = x.clone(memory_format=torch.contiguous_format)
    dist.broadcast(x, src=0)
    return x
