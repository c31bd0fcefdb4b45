"""Run by test_gather.py as one of two gloo ranks: python two_ranks.py RANK STORE_FILE OUT_FILE."""

import sys

import torch
import torch.distributed as dist
from cf_encoders import info_nce, retrieval_accuracy


def main(rank: int, store: str, out: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    group = dist.group.WORLD
    z, target = torch.randn(2, 6, 2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = slice(3 * rank, 3 * rank + 3)
    z, target = z[rows].clone().requires_grad_(), target[rows].clone().requires_grad_()
    log_scale = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    loss = info_nce(z, target, log_scale, group)
    loss.backward()
    accuracy = retrieval_accuracy(z, target, group)
    values = {"loss": loss, "z": z.grad, "target": target.grad, "log_scale": log_scale.grad}
    torch.save({**{k: v.detach() for k, v in values.items()}, "accuracy": accuracy}, out)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
