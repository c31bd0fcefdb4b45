"""Several ranks on one machine for the engine's tests: forked, so that torch is imported once; gloo, without a port."""

import os
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from cf_apps.engine.ranks.world import World

PATIENCE = timedelta(minutes=5)  # with a rank that never came; one that ends is noticed at once


def on_ranks(size: int, work: Callable[[World], object], meeting: Path) -> None:
    """Run `work` on `size` ranks; exits when one of them fails. meeting: a file that is not there yet."""
    states = [os.waitpid(process, 0)[1] for process in start_ranks(size, work, meeting)]
    if any(states):
        sys.exit(f"a rank failed: {states}")


def start_ranks(size: int, work: Callable[[World], object], meeting: Path) -> list[int]:
    """Start `work` on `size` ranks; their process numbers, for the caller to wait for."""
    return [_rank(rank, size, work, meeting) for rank in range(size)]


def _rank(rank: int, size: int, work: Callable[[World], object], meeting: Path) -> int:
    if process := os.fork():
        return process
    try:
        dist.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=rank, world_size=size, timeout=PATIENCE
        )
        work(World(rank, size, rank, dist.group.WORLD, torch.device("cpu")))
        dist.destroy_process_group()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)
