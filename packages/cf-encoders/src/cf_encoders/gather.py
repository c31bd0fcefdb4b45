"""Gather a batch over the ranks of a process group, and send the gradient back to where it belongs."""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

Group = Any  # torch.distributed.ProcessGroup exists only in builds with distributed support


def rank_in(group: Group | None) -> int:
    """This process's place in the group; 0 without one."""
    return 0 if group is None else dist.get_rank(group)


def gather_batch(x: Float[Tensor, "b d"], group: Group | None) -> Float[Tensor, "all_b d"]:
    """The batches of all ranks, in rank order; `x` itself without a group. All ranks must hold the same b."""
    return x if group is None else _Gather.apply(x, group)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group, ctx.b = group, len(x)
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size(group))]
        dist.all_gather(parts, x.contiguous(), group=group)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        total = grads[0].clone(memory_format=torch.contiguous_format)  # all_reduce writes in place
        dist.all_reduce(total, group=ctx.group)  # every rank's loss has used this rank's rows
        start = dist.get_rank(ctx.group) * ctx.b
        return total[start : start + ctx.b], None
