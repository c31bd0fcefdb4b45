"""A whole training step of text-to-image CrossFlow on a CPU, one thread: ours against the public trainer's way.

    uv run --no-sync python benchmarks/peers/training.py --repeats 5 --out benchmarks/results/training.json

Ours is the engine's own `fit` on its text-to-image task (`training_fit.py`), the public way is `public_trainer.py`.
Both have the same networks, image tower and weights, and the same batch of features, latents and images in memory
(`training_sizes.py`), and give the same loss, which is checked first. All in fp32. The rows below the public way take
from it, one after the other, what it does beside the model; what is left then is what the networks make of it.

Thread CPU time; the ways take turns within each repeat and the ratio is taken there, so a busy machine moves all of
them. Memory is of a process of its own: `above` is the most that a step has resident above what stays between steps
(weights, moments, average), `total` above the program without a model. Compare ratios.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from cf_apps.engine.config import FitConfig
from cf_apps.t2i.losses import t2i_losses
from cf_apps.t2i.model import T2IModel
from cf_apps.t2i.task import T2IBatch
from cf_transformer import DiMR
from cf_transformer.config import RecomputeKind
from cf_transformer.recompute import RECOMPUTE
from model_cpu import STATUS, resident
from public_trainer import AS_PUBLIC, Means, PublicTrainer
from record import write_record
from training_fit import Enough, fit_until_enough, model_of
from training_sizes import SEED, SIZES, batch_of
from turns import cpu_seconds

OURS, PUBLIC = "ours", "public way"
OUR_WAYS: dict[str, RecomputeKind] = {OURS: "nothing", "ours, blocks twice": "blocks"}
PUBLIC_WAYS = {
    PUBLIC: AS_PUBLIC,
    "public way, nothing twice": Means(blocks_twice=False),
    "  and its EMA in one call": Means(blocks_twice=False, ema_in_a_loop=False),
    "  and its AdamW fused": Means(blocks_twice=False, ema_in_a_loop=False, adamw_in_a_loop=False),
}
IN_MEMORY = (*OUR_WAYS, *list(PUBLIC_WAYS)[:2])
LARGEST_ERROR = 1e-4  # of the loss in fp32, relative: rounding in another order
WARM = 1  # steps before memory is looked at: the first makes the moments
Turn = dict[str, float]


@dataclass(frozen=True)
class Row:
    """A whole step by one way. gain: the time of the public way over its, in the same repeat."""

    size: str
    way: str
    ms: float
    gain: float


@dataclass(frozen=True)
class Memory:
    """The most that a step has resident, in MiB, and as a share of what the public way has."""

    size: str
    way: str
    above: float
    total: float
    above_of_public: float
    total_of_public: float


def check(model: T2IModel, public: PublicTrainer, batch: T2IBatch) -> None:
    """ArithmeticError unless both ways give one loss, without dropout, whose numbers they draw in another order."""
    model.modules.eval()
    public.modules.eval()
    assert batch.text is not None
    with torch.no_grad():
        ours = t2i_losses(model, batch.text, batch.x_1, batch.seen, dice()).total
        theirs = public.loss(batch, dice())
    if not ((ours - theirs).abs() < LARGEST_ERROR * ours.abs()).item():
        raise ArithmeticError(f"the public way's loss is {theirs:g}, ours {ours:g}")


def dice() -> torch.Generator:
    """The same numbers each time."""
    return torch.Generator().manual_seed(SEED)


def recompute(model: T2IModel, what: RecomputeKind) -> None:
    """Have the backbone compute that again in the backward pass."""
    for stage in cast("DiMR", model.backbone).stages:
        cast("Any", stage).run = RECOMPUTE[what]


# ------------------------------------------------------------------------------------------------------- the time


@dataclass
class Ways:
    """A model with our ways of a step, in which `fit` trains it, beside a public trainer with its ways."""

    model: T2IModel
    ours: dict[str, RecomputeKind]
    public: PublicTrainer
    theirs: dict[str, Means]
    batch: T2IBatch

    def in_turns(self, fit: FitConfig, repeats: int) -> list[Turn]:
        """Seconds of every way in every repeat, after one round that is not counted."""
        turns: list[Turn] = [{} for _ in range(repeats + 1)]
        names, began = list(self.ours), 0.0

        def between(step: int) -> None:
            nonlocal began
            if step:
                before, way = divmod(step - 1, len(names))
                turns[before][names[way]] = time.thread_time() - began
            turn, way = divmod(step, len(names))
            if turn > repeats:
                raise Enough
            if way == 0:
                turns[turn].update(
                    {name: cpu_seconds(lambda n=name: self.their_step(n)) for name in self.theirs}
                )
            recompute(self.model, self.ours[names[way]])
            began = time.thread_time()

        fit_until_enough(self.model, self.batch, fit, between)
        return turns[1:]

    def their_step(self, name: str) -> None:
        self.public.means = self.theirs[name]
        self.public.step(self.batch, dice())


def measure(name: str, options: argparse.Namespace) -> list[Row]:
    """All ways of a size."""
    size = SIZES[name]()
    batch, model = batch_of(size), model_of(size.config, size.tower)
    public = PublicTrainer(model, size.fit)
    check(model, public, batch)
    ways = Ways(model, OUR_WAYS, public, PUBLIC_WAYS, batch)
    return rows_of(name, ways.in_turns(size.fit, options.repeats))


def rows_of(name: str, turns: list[Turn]) -> list[Row]:
    """The medians of every way, the public one first."""
    return [
        Row(
            size=name,
            way=way,
            ms=1e3 * statistics.median(turn[way] for turn in turns),
            gain=statistics.median(turn[PUBLIC] / turn[way] for turn in turns),
        )
        for way in turns[0]
    ]


# ----------------------------------------------------------------------------------------------------- the memory


def peak_of_step(name: str, way: str) -> tuple[int, int]:
    """In a process of its own: bytes that the second step has resident at most, above what it began with and above the
    program."""
    torch.set_num_threads(1)
    size, program = SIZES[name](), resident("VmRSS")
    batch, model = batch_of(size), model_of(size.config, size.tower)
    marks = {}

    def between(step: int) -> None:
        if step == WARM:
            marks["before"] = resident("VmRSS")
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
        if step == WARM + 1:
            marks["peak"] = resident("VmHWM")
            raise Enough

    if way in PUBLIC_WAYS:
        public = PublicTrainer(model, size.fit)
        del model
        public.means = PUBLIC_WAYS[way]
        try:
            for step in range(WARM + 2):
                between(step)
                public.step(batch, dice())
        except Enough:
            pass
    else:
        recompute(model, OUR_WAYS[way])
        fit_until_enough(model, batch, size.fit, between)
    return marks["peak"] - marks["before"], marks["peak"] - program


def memory(name: str) -> list[Memory]:
    """Of the ways that differ in it; none where the system does not tell."""
    if not STATUS.exists():
        print("no memory figures: this system has no /proc/self/status")
        return []
    # large tensors go back to the system when they are freed, so what is resident is what is used
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**16)
    found = {}
    for way in IN_MEMORY:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found[way] = pool.apply(peak_of_step, (name, way))
    above, total = found[PUBLIC]
    return [
        Memory(name, way, peak[0] / 2**20, peak[1] / 2**20, peak[0] / above, peak[1] / total)
        for way, peak in found.items()
    ]


# ----------------------------------------------------------------------------------------------------- the report


def table(rows: list[Row], memories: list[Memory]) -> str:
    """The rows in aligned columns."""
    lines = [f"{'size':10}{'way':30}{'ms':>10}{'public / it':>13}"]
    lines += [f"{r.size:10}{r.way:30}{r.ms:10.0f}{r.gain:13.2f}" for r in rows]
    lines += [
        "",
        f"{'size':10}{'way':30}{'above MiB':>10}{'of public':>11}{'total MiB':>11}{'of public':>11}",
    ]
    lines += [
        f"{m.size:10}{m.way:30}{m.above:10.0f}{m.above_of_public:11.2f}{m.total:11.0f}{m.total_of_public:11.2f}"
        for m in memories
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5, help="of every way; 0 measures memory only")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="which models")
    parser.add_argument("--no-memory", action="store_true", help="time only")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()

    torch.set_num_threads(1)
    rows = [row for name in options.sizes if options.repeats for row in measure(name, options)]
    memories = [row for name in options.sizes if not options.no_memory for row in memory(name)]
    print(table(rows, memories))
    settings = {"repeats": options.repeats, "samples": {name: SIZES[name]().b for name in options.sizes}}
    words = f"training.py --repeats {options.repeats}"
    write_record(options.out, words, settings, {"rows": rows, "memory": memories})


if __name__ == "__main__":
    main()
