"""One batch spread over the ranks of a process group: gathered whole, its gradient sent back to where it belongs."""

from collections.abc import Sequence
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


def whole_batch(
    x: Float[Tensor, "b d"], group: Group | None, sizes: Sequence[int] | None = None
) -> WholeBatch:
    """How many rows all ranks of the group hold; without a group there is one rank.

    sizes: of each rank, in rank order, where the caller knows them. Else all ranks are asked: a collective more, which
    waits for the GPU, after which ValueError is raised on all ranks where the rows differ in width. All ranks must call
    it alike. Raises ValueError where nobody holds any row, or this rank not as many as `sizes` says.
    """
    if group is None:
        batch = WholeBatch((len(x),), 0, None)
    elif sizes is not None:
        batch = _told(x, group, sizes)
    else:
        mine = torch.tensor([x.shape], device=x.device)
        everyone = mine.new_empty(dist.get_world_size(group), 2)
        dist.all_gather_into_tensor(everyone, mine, group=group)
        # waits for the GPU: without the sizes nothing can be laid out
        rows, widths = everyone.T.tolist()
        if len(set(widths)) > 1:
            raise ValueError(f"the ranks' latents hold {widths} numbers; all must have one shape")
        batch = WholeBatch(tuple(rows), dist.get_rank(group), group)
    if not batch.rows:
        raise ValueError("the batch is empty on every rank; there is no pair to contrast")
    return batch


def _told(x: Float[Tensor, "b d"], group: Group, sizes: Sequence[int]) -> WholeBatch:
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    if len(sizes) != ranks or sizes[rank] != len(x):
        raise ValueError(
            f"sizes {list(sizes)} are not those of the {ranks} ranks: rank {rank} holds {len(x)} rows; leave them out "
            "and the ranks are asked"
        )
    return WholeBatch(tuple(sizes), rank, group)


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
