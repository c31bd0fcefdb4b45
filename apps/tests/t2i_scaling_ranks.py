"""What two ranks hand to gloo in a training step by DDP; a process of its own.

    python t2i_scaling_ranks.py FOLDER

FOLDER/found: parameters, and bytes of the gradients that are reduced.
"""

import sys
from pathlib import Path

import torch
import torch._dynamo
import torch.distributed as dist
from cf_apps.engine.ranks import parallel
from cf_apps.engine.ranks.world import World
from cf_transformer import DiMR, DiMRConfig, StageConfig
from engine_ranks import on_ranks
from torch import nn

CONFIG = DiMRConfig(
    4, (8, 8), (StageConfig("transformer", 32, 3, 2, n_heads=2), StageConfig("convnext", 16, 3, 1))
)


def modules() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"backbone": DiMR(CONFIG)})


def step(parts: nn.ModuleDict, sharing: parallel.Sharing) -> None:
    def act() -> torch.Tensor:
        outputs = parts["backbone"].scales(torch.ones(1, 4, 8, 8), torch.full((1,), 0.5))  # pyright: ignore
        return sum((x.square().mean() for x in outputs), torch.zeros(()))

    with sharing.backward_of(last=True):
        sharing.call(act).backward()
    sharing.finish()


def reduced(world: World) -> int:
    """Bytes of the buckets of gradients in a step."""
    parts, found = modules(), [0]
    sharing = parallel.Replicated(parts, world)

    def counted(state: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        found[0] += bucket.buffer().nbytes
        work = dist.all_reduce(bucket.buffer(), async_op=True)
        assert work is not None
        return work.get_future().then(lambda done: done.value()[0] / world.size)

    sharing._ddp.register_comm_hook(None, counted)
    step(parts, sharing)
    return found[0]


def work(world: World, folder: Path) -> None:
    torch.set_num_threads(1)
    found = reduced(world)
    if world.main:
        trained = sum(p.numel() for p in modules().parameters())
        (folder / "found").write_text(f"{trained} {found}")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    on_ranks(2, lambda world: work(world, target), target / "meeting")
