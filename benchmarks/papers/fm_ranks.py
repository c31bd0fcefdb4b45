"""One process or many (`torchrun`): who this one is, its share of the work, and putting the shares together."""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Ranks:
    """This process among `count`, and its device."""

    mine: int
    count: int
    device: torch.device

    @property
    def speaks(self) -> bool:
        """Whether this process prints and writes."""
        return self.mine == 0

    def share(self, rows: Tensor) -> Tensor:
        """Every count-th row, on this device."""
        return rows[self.mine :: self.count].to(self.device)

    def gathered(self, mine: Tensor) -> Tensor:
        """All shares, in the order of the rows, on the CPU."""
        if self.count == 1:
            return mine.cpu()
        shares: list[Tensor] = [mine] * self.count
        dist.all_gather_object(shares, mine.cpu())
        whole = mine.new_empty(sum(map(len, shares)), *mine.shape[1:], device="cpu")
        for rank, share in enumerate(shares):
            whole[rank :: self.count] = share
        return whole

    def mean(self, mine: float) -> float:
        """The mean over the processes."""
        return self.gathered(torch.tensor([mine])).mean().item()

    def in_step(self, net: nn.Module) -> nn.Module:
        """The network with its gradients averaged over the processes."""
        return nn.parallel.DistributedDataParallel(net) if self.count > 1 else net


def join() -> Ranks:
    """What torchrun says in the environment, else a single process."""
    count, mine = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if count > 1:
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    return Ranks(
        mine, count, torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    )
