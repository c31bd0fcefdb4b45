"""Memory of the hand-over between two stages of the 951M model in a training step: streamed, and concatenated.

    uv run --no-sync python benchmarks/peers/hand_over_memory.py --out benchmarks/results/hand_over_memory.json

66 maps of 256 tokens and 1,024 channels a sample, from inputs to the gradients of all of them. The most that is
resident at once, above maps, weights and the gradients of both, each way in a process of its own. `plain` is the
concatenation in plain torch as DiMR draws it. Needs Linux (/proc).
"""

import argparse
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from cf_transformer import Cascade
from cf_transformer.position import pixel_shuffle
from model_cpu import resident
from record import write_record
from torch import Tensor

MAPS, LOW, HIGH, RATIO, GRID = 66, 1024, 512, 2, (16, 16)
BYTES_PER_SAMPLE = MAPS * LOW * GRID[0] * GRID[1] * 4


@dataclass(frozen=True)
class Row:
    """One way at one batch size."""

    way: str
    b: int
    autocast: bool
    maps_mib: float
    above_mib: float


def streamed(cascade: Cascade, maps: list[Tensor], t: Tensor) -> Tensor:
    return cascade(maps, t)[1]


def plain(cascade: Cascade, maps: list[Tensor], t: Tensor) -> Tensor:
    """All maps concatenated, TD-LN over all channels, projection, shuffle, TD-LN."""
    x = torch.cat(maps, dim=-1)
    gamma, beta = (torch.cat(list(leaf(t)), dim=-1) for leaf in (cascade.gain, cascade.shift))
    x = cascade.project(torch.addcmul(beta, F.layer_norm(x, x.shape[-1:]), gamma))
    return cascade.norm(pixel_shuffle(x, RATIO, GRID), t)


WAYS: dict[str, Callable[[Cascade, list[Tensor], Tensor], Tensor]] = {"streamed": streamed, "plain": plain}


def peak(way: str, b: int, autocast: bool) -> int:
    """In a process of its own: bytes resident at most, above what was there before and what is left behind."""
    torch.manual_seed(0)
    cascade, t = Cascade(MAPS, LOW, HIGH, RATIO, GRID), torch.rand(b)
    maps = [torch.randn(b, GRID[0] * GRID[1], LOW).requires_grad_() for _ in range(MAPS)]
    for leaf in (*maps, *cascade.parameters()):
        leaf.grad = torch.zeros_like(leaf)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = WAYS[way](cascade, maps, t)
    y.float().square().mean().backward()
    return resident("VmHWM") - before


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**16)  # freed tensors go back to the system
    rows = []
    for b in options.batches:
        for autocast in (False, True):
            for way in WAYS:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    above = pool.apply(peak, (way, b, autocast)) / 2**20
                rows.append(Row(way, b, autocast, b * BYTES_PER_SAMPLE / 2**20, above))
                precision = "bf16" if autocast else "fp32"
                print(f"b {b}, {precision}, {way:9} {above:8.0f} MiB above {rows[-1].maps_mib:.0f} of maps")
    write_record(options.out, "hand_over_memory.py", {}, {"rows": rows}, threads="")


if __name__ == "__main__":
    main()
