"""One batch spread over the ranks of a process group: gathered whole, its gradient sent back to where it belongs."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

Group = Any  # torch.distributed.ProcessGroup exists only in builds with distributed support


@dataclass(frozen=True)
class WholeBatch:
    """How the rows of a batch lie over the ranks, in rank order. Ranks may hold different numbers, also none."""

    sizes: tuple[int, ...]  # rows of each rank
    rank: int  # this process
    group: Group | None

    @property
    def rows(self) -> int:
        """B, over all ranks."""
        return sum(self.sizes)

    @property
    def mean_weight(self) -> float:
        """What turns a sum over this rank's rows into its share of the mean over all rows, ranks / B.

        The mean of the ranks' shares is the mean over the whole batch, and since DDP takes the mean of the ranks'
        gradients, they too are those of the whole batch: also where the ranks hold different numbers of rows.
        """
        return len(self.sizes) / self.rows

    def places(self, device: torch.device) -> Int[Tensor, "b"]:
        """Where this rank's rows are in the whole batch."""
        start = sum(self.sizes[: self.rank])
        return torch.arange(start, start + self.sizes[self.rank], device=device)

    def gather(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "all_b d"]:
        """The rows of all ranks; `x` itself without a group. Gradients come back to the rank that holds the row."""
        return x if self.group is None else _Gather.apply(x, self.sizes, self.rank, self.group)

    def total(self, x: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """The sum of the ranks' values, without gradient."""
        if self.group is None:
            return x.detach()
        x = x.detach().clone()
        dist.all_reduce(x, group=self.group)
        return x


def whole_batch(x: Float[Tensor, "b d"], group: Group | None) -> WholeBatch:
    """Ask all ranks of the group how many rows they hold; without a group there is one rank.

    All ranks must call it. Raises ValueError on all of them where the rows differ in width, or nobody holds any.
    """
    if group is None:
        batch = WholeBatch((len(x),), 0, None)
    else:
        mine = torch.tensor([x.shape], device=x.device)
        everyone = mine.new_empty(dist.get_world_size(group), 2)
        dist.all_gather_into_tensor(everyone, mine, group=group)
        # waits for the GPU: without the sizes nothing can be laid out
        sizes, widths = everyone.T.tolist()
        if len(set(widths)) > 1:
            raise ValueError(f"the ranks' latents hold {widths} numbers; all must have one shape")
        batch = WholeBatch(tuple(sizes), dist.get_rank(group), group)
    if not batch.rows:
        raise ValueError("the batch is empty on every rank; there is no pair to contrast")
    return batch


class _Gather(torch.autograd.Function):
    """All rows from the rows of each rank. Collectives want equal parts: shorter ones are filled up with zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: tuple[int, ...], rank: int, group: Group) -> Tensor:
        ctx.sizes, ctx.rank, ctx.group = sizes, rank, group
        longest = max(sizes)
        filled = torch.nn.functional.pad(x, (0, 0, 0, longest - len(x))).contiguous()
        parts = x.new_empty(len(sizes) * longest, x.shape[1])
        dist.all_gather_into_tensor(parts, filled, group=group)
        return torch.cat([part[:size] for part, size in zip(parts.split(longest), sizes, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor, None, None, None]:
        longest = max(ctx.sizes)
        parts = grads[0].new_zeros(len(ctx.sizes) * longest, grads[0].shape[1])
        for part, grad in zip(parts.split(longest), grads[0].split(ctx.sizes), strict=True):
            part[: len(grad)] = grad
        mine = grads[0].new_empty(longest, grads[0].shape[1])
        # every rank's loss has used this rank's rows
        dist.reduce_scatter_tensor(mine, parts, group=ctx.group)
        return mine[: ctx.sizes[ctx.rank]], None, None, None
