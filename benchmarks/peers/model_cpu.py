"""DiMR against the public way on a CPU, one thread: a velocity, a training step, a guided sampling step.

    uv run --no-sync python benchmarks/peers/model_cpu.py --repeats 9 --out benchmarks/results/model_cpu.json

Both have the same weights and give the same velocity, which is checked first. Thread CPU time; the ways take turns
within each repeat and the ratio is taken there, so a busy machine moves all of them. In training the public way
computes every block twice and DiMR nothing; `nothing twice` and `blocks twice` are the other way round. Memory is what
a training step needs above weights and moments, the most that is resident at once, each way in a process of its own.
Compare ratios.
"""

import argparse
import multiprocessing
import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from cf_flowcore import classifier_free, multiscale_loss, solve
from cf_transformer import DiMR, DiMRConfig, StageConfig, TimeLerp, preset
from public_dimr import PublicDiMR
from record import write_record
from torch import Tensor, nn
from turns import cpu_seconds

WAYS = OURS, PUBLIC, OURS_TWICE, PUBLIC_ONCE = (
    "DiMR",
    "public way",
    "DiMR, blocks twice",
    "public way, nothing twice",
)
SCALE = 7.0
LARGEST_ERROR = 1e-4  # of the velocity in fp32, relative: rounding in another order
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Size:
    """A network and how many samples it gets."""

    config: DiMRConfig
    b: int


SIZES = {
    "tiny": Size(
        DiMRConfig(
            3, (32, 32), (StageConfig("transformer", 192, 7, 4, n_heads=3), StageConfig("convnext", 64, 3, 1))
        ),
        b=8,
    ),
    "dimr-70m": Size(preset("dimr-70m"), b=2),
}


@dataclass(frozen=True)
class Row:
    """One task of one size by one way; the ratio is its time over DiMR's."""

    size: str
    task: str
    way: str
    ms: float
    ratio: float


@dataclass(frozen=True)
class Memory:
    """The most that a training step has resident above weights and moments, and over DiMR's."""

    size: str
    way: str
    mib: float
    ratio: float


# ------------------------------------------------------------------------------------------------ the networks


def networks(config: DiMRConfig) -> dict[str, nn.Module]:
    """All ways with the same weights, time-dependent from the start (a fresh model is not)."""
    generator = torch.Generator().manual_seed(0)
    model = DiMR(config, generator)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, TimeLerp):
                for leaf in module.parameters():
                    leaf.add_(0.1 * torch.randn(leaf.shape, generator=generator))
    twin = DiMR(replace(config, recompute="blocks"))
    twin.load_state_dict(model.state_dict())
    return {
        OURS: model,
        PUBLIC: PublicDiMR(model),
        OURS_TWICE: twin,
        PUBLIC_ONCE: PublicDiMR(model, recompute=False),
    }


def inputs(size: Size) -> tuple[Tensor, Tensor, Tensor]:
    """x_t, t and is_null; every t is another."""
    generator = torch.Generator().manual_seed(1)
    x_t = torch.randn(size.b, size.config.channels, *size.config.size, generator=generator)
    t = torch.rand(size.b, generator=generator)
    return x_t, t, torch.rand(size.b, generator=generator) < 0.1


def check(ways: dict[str, nn.Module], size: Size) -> None:
    """ArithmeticError unless all ways give one velocity."""
    with torch.no_grad():
        exact = ways[OURS](*inputs(size))
        for name, network in ways.items():
            error = ((network(*inputs(size)) - exact).norm() / exact.norm()).item()
            if not error < LARGEST_ERROR:
                raise ArithmeticError(f"the velocity of {name!r} is off by {error:g} of its size")


# --------------------------------------------------------------------------------------------------- the tasks

Task = Callable[[], object]


def velocity(network: nn.Module, size: Size, autocast: bool) -> Task:
    """One forward pass."""
    given = inputs(size)

    @torch.no_grad()
    def task() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            network.eval()(*given)

    return task


def training_step(network: nn.Module, size: Size, autocast: bool) -> Task:
    """Forward, backward and AdamW on every scale's loss."""
    given = inputs(size)
    v_t = torch.randn(given[0].shape, generator=torch.Generator().manual_seed(2))
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-5, betas=(0.9, 0.9), weight_decay=0.03)

    def task() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            predictions = cast("Any", network.train()).scales(*given)
        multiscale_loss(predictions, v_t).mean().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return task


def guided_step(network: nn.Module, size: Size, autocast: bool) -> Task:
    """One Euler step of guided sampling: ours asks for both halves in one call, the public way in two."""
    x_0 = inputs(size)[0]
    guided = classifier_free(network.eval(), SCALE, batched=isinstance(network, DiMR))

    def task() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            solve(guided, x_0, method="euler", steps=1)

    return task


TASKS = {"velocity": velocity, "training step": training_step, "guided step": guided_step}
RECOMPUTES = "training step"  # the only task in which `twice` means something


def measure(name: str, options: argparse.Namespace) -> list[Row]:
    """All tasks of a size, the ways taking turns."""
    size = SIZES[name]
    ways = networks(size.config)
    check(ways, size)
    rows = []
    for task_name, make in TASKS.items():
        chosen = [way for way in ways if task_name == RECOMPUTES or way in (OURS, PUBLIC)]
        tasks = {way: make(ways[way], size, options.autocast) for way in chosen}
        for task in tasks.values():
            task()
        seconds = [{way: cpu_seconds(task) for way, task in tasks.items()} for _ in range(options.repeats)]
        for way in chosen:
            rows.append(
                Row(
                    size=name,
                    task=task_name,
                    way=way,
                    ms=1e3 * statistics.median(turn[way] for turn in seconds),
                    ratio=statistics.median(turn[way] / turn[OURS] for turn in seconds),
                )
            )
    return rows


# -------------------------------------------------------------------------------------------------- the memory


def resident(what: str) -> int:
    """Bytes of this process now (VmRSS), or the most since the mark was reset (VmHWM)."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{what}:"))
    return 1024 * int(line.split()[1])


def peak_of_training(name: str, way: str, autocast: bool) -> int:
    """In a process of its own: bytes that a second training step has resident at most, above what it began with."""
    torch.set_num_threads(1)
    size = SIZES[name]
    step = training_step(networks(size.config)[way], size, autocast)
    step()  # makes the moments
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    step()
    return resident("VmHWM") - before


def memory(name: str, options: argparse.Namespace) -> list[Memory]:
    """Of every way; none where the system does not tell."""
    if not STATUS.exists():
        print("no memory figures: this system has no /proc/self/status")
        return []
    # large tensors go back to the system when they are freed, so what is resident is what is used
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**16)
    found = {}
    for way in WAYS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found[way] = pool.apply(peak_of_training, (name, way, options.autocast))
    return [Memory(name, way, size / 2**20, size / found[OURS]) for way, size in found.items()]


# -------------------------------------------------------------------------------------------------- the report


def table(rows: list[Row], memories: list[Memory]) -> str:
    """The rows in aligned columns."""
    lines = [f"{'size':10}{'task':15}{'way':28}{'ms':>10}{'ratio':>8}"]
    lines += [f"{r.size:10}{r.task:15}{r.way:28}{r.ms:10.1f}{r.ratio:8.2f}" for r in rows]
    lines += ["", f"{'size':10}{'training step':15}{'way':28}{'MiB':>10}{'ratio':>8}"]
    lines += [f"{m.size:10}{'memory':15}{m.way:28}{m.mib:10.1f}{m.ratio:8.2f}" for m in memories]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9, help="of every task")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="which networks")
    parser.add_argument("--autocast", action="store_true", help="under bf16 autocast, not in fp32")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()

    torch.set_num_threads(1)
    rows = [row for name in options.sizes for row in measure(name, options)]
    memories = [row for name in options.sizes for row in memory(name, options)]
    print(table(rows, memories))
    settings = {"repeats": options.repeats, "samples": {name: SIZES[name].b for name in options.sizes}}
    words = "model_cpu.py" + " --autocast" * options.autocast
    write_record(options.out, words, settings, {"rows": rows, "memory": memories})


if __name__ == "__main__":
    main()
