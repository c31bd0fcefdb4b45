"""The same trainings on one, two and three ranks, by DDP and FSDP2; a process of its own.

    python engine_worlds.py FOLDER

FOLDER/CASE-WAY-SIZE.pt: what rank 0 of each found, see `Found`. In float64, so that what differs is the order of sums.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # torch's optimizers import it at their first step; once here, not in each rank
import torch.distributed.fsdp  # likewise
from cf_apps.data.captioned import ImageTextArrays
from cf_apps.engine import FitConfig, fit, read_log
from cf_apps.engine.flow import SampleConfig, carry
from cf_apps.engine.ranks import parallel
from cf_apps.engine.ranks.shards import whole
from cf_apps.engine.ranks.spread import spread_over
from cf_apps.engine.ranks.world import ALONE, World
from cf_apps.engine.saving import storage  # noqa: F401  the first save imports it; once here, too
from cf_apps.engine.saving.state import named_tensors
from cf_apps.t2i.task import T2IBatch, T2ITask
from engine_ranks import on_ranks
from t2i_tiny import CAPTIONS, model
from torch import Tensor

FIT = FitConfig(
    steps=3, batch_size=7, lr=3e-3, warmup_steps=2, schedule="cosine", clip_norm=0.5, ema_decay=0.8,
    ema_ramp=2.0, log_every=1, save_every=2,
)  # fmt: skip
LOSS = {"loss__null_rate": 0.5, "loss__mean_weight": 0.2, "loss__times": "early"}


@dataclass(frozen=True)
class Case:
    """A recipe, and in which worlds it is trained besides the one of one process."""

    model: dict[str, Any]
    fit: FitConfig
    worlds: tuple[tuple[str, int], ...]


CASES = {
    # all that looks across rows: negatives, null targets, variances, stratified t; rows 4 + 3 and 3 + 2 + 2
    "joint": Case(LOSS, FIT, (("ddp", 2), ("ddp", 3), ("fsdp", 2))),
    # parts of 5 rows; blocks are computed twice
    "accumulated": Case(
        LOSS | {"backbone__recompute": "blocks"},
        replace(FIT, batch_size=10, accumulate=2, prefetch=1),
        (("ddp", 2), ("fsdp", 3)),
    ),
    # first the encoder alone, then the flow alone: parameters without a gradient must stay as they are
    "stages": Case(LOSS | {"strategy": "two-stage", "encoder_share": 0.5}, FIT, (("ddp", 2), ("fsdp", 2))),
    "bf16": Case(LOSS, replace(FIT, precision="bf16"), (("fsdp", 2),)),
}


class DoubleTask(T2ITask):
    """The weights of a tiny text-to-image model in float64, and its pictures."""

    def batch(self, first: int, size: int, rows: range | None = None) -> T2IBatch:
        drawn = super().batch(first, size, rows)
        kind = next(self.modules.parameters()).dtype
        return replace(drawn, x_1=drawn.x_1.to(kind), seen=drawn.seen.to(kind))


def data() -> ImageTextArrays:
    """Eleven pictures; some captions have two phrasings, so that one is drawn."""
    images = torch.randint(
        256, (11, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8
    )
    phrasings = [(CAPTIONS[i % 5], CAPTIONS[(i + 2) % 5])[: 1 + i % 2] for i in range(11)]
    return ImageTextArrays(images, tuple(phrasings), "eleven")


def build(case: Case) -> DoubleTask:
    made = model(seed=2, **case.model)
    if case.fit.precision == "fp32":
        made.modules.double()
    return DoubleTask(made, data(), "eleven", seed=4)


def train(folder: Path, name: str, way: str, world: World) -> None:
    """Train a case in this world; rank 0 writes what came of it."""
    case, run = CASES[name], folder / f"{name}-{way}-{world.size}"
    task = build(case)
    evaluated = []

    def evaluate(step: int) -> dict[str, float]:
        """The mean velocity of a fixed x_t: that of the averaged weights, whoever holds them."""
        x = torch.linspace(-1, 1, 3 * 16 * 16).view(1, 3, 16, 16).to(next(task.modules.parameters()).dtype)
        v = task.model.backbone(x, torch.full((1,), 0.3), torch.zeros(1, dtype=torch.bool))
        evaluated.append(v.double().abs().mean().item())
        return {"v": evaluated[-1]}

    config = replace(case.fit, parallel=way if world.size > 1 else "ddp", evaluate_every=2)
    result = fit(task, config, run, world=world, evaluate=evaluate)
    tensors = named_tensors(task.modules) | {f"ema.{k}": v for k, v in result.ema.state().items()}
    full: dict[str, Tensor] = {key: whole(tensor).clone() for key, tensor in tensors.items()}
    if world.main:
        found = {"tensors": full, "log": read_log(run), "evaluation": read_log(run, "evaluation")}
        torch.save(found, run.with_suffix(".pt"))


def sample(folder: Path, world: World) -> None:
    """Seven rows carried by a fixed and by an adaptive solver, shared out among the ranks."""
    made = model(seed=2)
    made.modules.double().eval()
    x_0 = torch.randn(7, 3, 16, 16, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    with spread_over(world):
        found = {
            solver: carry(made.backbone, x_0, SampleConfig(scale=2.0, steps=3, solver=solver))
            for solver in ("euler", "dopri5")
        }
    if world.main:
        torch.save(
            {s: (of.x, of.rows, of.accepted) for s, of in found.items()}, folder / f"sampled-{world.size}.pt"
        )


def of_size(size: int, folder: Path, world: World) -> None:
    parallel.SMALLEST_SHARD = 0  # blocks of a tiny model are gathered one by one too
    torch.set_num_threads(1)
    sample(folder, world)
    for name, case in CASES.items():
        ways = [way for way, ranks in case.worlds if ranks == size] if size > 1 else ["one"]
        for way in ways:
            train(folder, name, way, world)


def main(folder: Path) -> None:
    on_ranks(1, lambda _: of_size(1, folder, ALONE), folder / "meeting-1")
    for size in (2, 3):
        on_ranks(size, lambda world, size=size: of_size(size, folder, world), folder / f"meeting-{size}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
