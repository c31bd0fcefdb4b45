"""Run by test_gather.py as one of several gloo ranks: python gloo_rank.py RANK RANKS STORE_FILE OUT_FILE."""

import sys
from contextlib import contextmanager

import torch
import torch.distributed as dist
from cf_encoders import LogScale, info_nce, retrieval_accuracy
from cf_encoders.sigmoid_loss import ScaleAndBias, sigmoid_loss
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

# name -> (which processes form the group, how many pairs each of them holds)
SPLITS = {
    "2 ranks": ((1, 2), (3, 3)),
    "2 ranks, uneven": ((0, 1), (1, 6)),
    "3 ranks": ((0, 1, 2), (3, 3, 3)),
    "3 ranks, uneven": ((0, 1, 2), (4, 2, 3)),
    "3 ranks, one with nothing": ((0, 1, 2), (4, 0, 3)),
}
LOSSES = {"info_nce": (LogScale, info_nce), "sigmoid": (ScaleAndBias, sigmoid_loss)}
DTYPES = {"float64": torch.float64, "float32": torch.float32}


class Pairs(nn.Module):
    """Two linear encoders, a scale, and the loss between what they give."""

    def __init__(self, loss: str, dtype: torch.dtype) -> None:
        super().__init__()
        scale, self.loss = LOSSES[loss]
        self.source, self.target, self.scale = nn.Linear(5, 6), nn.Linear(3, 6), scale()
        draw = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in (*self.source.parameters(), *self.target.parameters()):
                parameter.copy_(torch.randn(parameter.shape, generator=draw))
        self.to(dtype)

    def forward(self, x, y, group, sizes):
        z, target, scale = self.source(x), self.target(y), self.scale()
        scale = scale if isinstance(scale, tuple) else (scale,)
        return self.loss(z, target, *scale, group, sizes), retrieval_accuracy(z, target, group, sizes)


def averaged(grad: torch.Tensor, group) -> torch.Tensor:
    """The mean over the ranks: all that DistributedDataParallel does, whose import takes longer than this script."""
    if group is not None:
        dist.all_reduce(grad, group=group)
        grad /= dist.get_world_size(group)
    return grad


@contextmanager
def gathers(kinds: list):
    """Within the block, the type of the numbers in every gather is put down."""
    gather = dist.all_gather_into_tensor

    def noted(out, mine, group):
        kinds.append(mine.dtype)
        return gather(out, mine, group=group)

    dist.all_gather_into_tensor = noted
    try:
        yield
    finally:
        dist.all_gather_into_tensor = gather


def measure(loss: str, dtype: str, sizes: tuple[int, ...], rank: int, group, told: bool = False) -> dict:
    """Loss, retrieval accuracy, the gradients of one rank, and the shapes of what is held for them."""
    model = Pairs(loss, DTYPES[dtype])
    draw = torch.Generator().manual_seed(1)
    # the same numbers in both precisions
    x, y = torch.randn(sum(sizes), 5, generator=draw), torch.randn(sum(sizes), 3, generator=draw)
    x, y = (side.to(DTYPES[dtype]).split(sizes)[rank].clone().requires_grad_() for side in (x, y))
    held, kinds = set(), []
    hooks = saved_tensors_hooks(lambda saved: held.add(tuple(saved.shape)) or saved, lambda saved: saved)
    with hooks, gathers(kinds):
        value, accuracy = model(x, y, group, sizes if told else None)
    value.backward()
    grads = {name: averaged(parameter.grad, group) for name, parameter in model.named_parameters()}
    return {
        "loss": value.detach(),
        "accuracy": accuracy,
        "x": x.grad,
        "y": y.grad,
        "parameters": grads,
        "held": held,
        "gathers": kinds,
    }


def refusals(rank: int) -> list[str]:
    """What every rank says when the ranks do not fit together."""
    said = []
    for z in (torch.ones(2, 4 + rank), torch.ones(0, 4)):
        try:
            info_nce(z, z, torch.tensor(1.0), dist.group.WORLD)
        except ValueError as error:
            said.append(str(error))
    for sizes in ((2, 3), (2, 2, 2, 2), (5, 5, 5)):
        try:
            info_nce(torch.ones(2, 4), torch.ones(2, 4), torch.tensor(1.0), dist.group.WORLD, sizes)
        except ValueError as error:
            said.append(str(error))
    return said


def main(rank: int, ranks: int, store: str, out: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    found = {"refusals": refusals(rank)}
    for split, (members, sizes) in SPLITS.items():
        group = dist.new_group(members)  # every process must ask for every group
        if rank in members:
            for loss in LOSSES:
                for dtype in DTYPES:
                    own = (loss, dtype, sizes, members.index(rank), group)
                    found[split, loss, dtype] = measure(*own)
                    found["told", split, loss, dtype] = measure(*own, told=True)
    torch.save(found, out)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
