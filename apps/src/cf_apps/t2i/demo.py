"""`crossflow t2i demo`: draw with the shipped model, train one from scratch, score both, and show everything."""

import json
import time
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cf_apps.data.sources import EMOJI, SHAPES, open_source
from cf_apps.engine.app import train
from cf_apps.engine.curves import curves
from cf_apps.engine.device import describe_device
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.files import write_text
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.log import read_log
from cf_apps.engine.progress import progress_line
from cf_apps.engine.recipe import TrainRequest
from cf_apps.engine.render import image_grid, save_png
from cf_apps.engine.run import commit, free_folder, versions
from cf_apps.t2i.app import APP
from cf_apps.t2i.arithmetic import draw_between
from cf_apps.t2i.evaluate import Scored, score_composition, score_pairs, unguided
from cf_apps.t2i.sample import Sampler

SHOWN = (
    "a large yellow square at the top left on a gray background",
    "three small blue triangles at the top left, on the right and at the bottom on a white background",
    "a large green circle on the left and a large purple square on the right on a white background",
    "a small orange triangle at the top above a large blue circle at the bottom on a black background",
    "a small red square at the top left, a large green triangle at the top right and a small yellow circle at "
    "the bottom on a gray background",
    "two small purple circles at the top and at the bottom right",
    "a red circle left of a blue square on a white background",
    "a red circle",
)
BETWEEN = (
    "a large red circle on the left on a white background",
    "a large blue square on the right on a white background",
    "three small yellow triangles at the top left, on the right and at the bottom on a white background",
)
SHOWN_EMOJI = 8
GUIDED = 2.0  # the scale shown beside the unguided pictures where a run draws without guidance


@dataclass(frozen=True)
class DemoResult:
    """Where everything is, and the numbers of the two columns (None where a column was left out)."""

    out: Path
    files: tuple[Path, ...]
    shipped: dict[str, float] | None
    scratch: dict[str, Any] | None
    seconds: float


def shipped_run() -> Path:
    """The folder of the `tiny` model that comes with the package."""
    return Path(str(files("cf_apps") / "assets" / "tiny"))


def demo(data: str, out: Path, minutes: float, seed: int, device: torch.device) -> DemoResult:
    """Everything a newcomer wants to see, in `out`. data: `shapes` (both columns) or `emoji` (from scratch only)."""
    if data == SHAPES:
        return _demo_shapes(free_folder(out), minutes, seed, device)
    if data == EMOJI:
        return _demo_emoji(free_folder(out), minutes, seed, device)
    raise ConfigError(
        f"the demo knows the data {SHAPES} and {EMOJI}, not {data!r}; train on your own with t2i train"
    )


def _demo_shapes(out: Path, minutes: float, seed: int, device: torch.device) -> DemoResult:
    start = time.monotonic()
    ready = Sampler.from_run(shipped_run(), device)
    how = ready.model.config.sample
    with progress_line("drawing with the shipped model") as line:
        shipped = score_composition(ready, how, line, seed=seed)
    result = train(
        APP,
        TrainRequest("tiny", out, SHAPES, max_seconds=60 * minutes, seed=seed),
        device,
        "training from scratch",
    )
    fresh = Sampler.from_run(result.run, device)
    with progress_line("drawing with the fresh model") as line:
        scratch = score_composition(fresh, how, line, seed=seed)

    written = (
        out / "checkpoints",
        save_png(_sample_sheet(ready, list(SHOWN), how, seed), out / "samples.png"),
        save_png(_sample_sheet(fresh, list(SHOWN), how, seed), out / "samples_from_scratch.png"),
        save_png(_failures(shipped, seed), out / "scored.png"),
        curves(read_log(out), out / "loss.png"),
        save_png(_walk(ready, how, seed), out / "interpolation.png"),
        out / "report.json",
    )
    seconds = time.monotonic() - start
    report = _report(device, seed, how, seconds) | {
        "shipped": shipped.table(),
        "from_scratch": scratch.table() | {"steps": result.step, "training_seconds": result.elapsed},
    }
    write_text(out / "report.json", json.dumps(report, indent=1))
    return DemoResult(out, written, shipped.table(), report["from_scratch"], seconds)


def _demo_emoji(out: Path, minutes: float, seed: int, device: torch.device) -> DemoResult:
    start = time.monotonic()
    result = train(
        APP,
        TrainRequest("emoji", out, EMOJI, max_seconds=60 * minutes, seed=seed),
        device,
        "training on emoji",
    )
    fresh = Sampler.from_run(result.run, device)
    source = open_source(EMOJI, fresh.model.config.image_size, seed)
    how = fresh.model.config.sample
    with progress_line("drawing held-out captions") as line:
        scores = score_pairs(fresh, source.val, how, line, seed=seed)
    seen = source.train.batch(torch.linspace(0, len(source.train) - 1, SHOWN_EMOJI).long())
    held = source.val.batch(torch.linspace(0, len(source.val) - 1, SHOWN_EMOJI).long())
    written = (
        out / "checkpoints",
        save_png(_sample_sheet(fresh, seen.captions, how, seed, seen.images), out / "samples.png"),
        save_png(_sample_sheet(fresh, held.captions, how, seed, held.images), out / "samples_held_out.png"),
        curves(read_log(out), out / "loss.png"),
        save_png(_walk(fresh, how, seed, tuple(seen.captions[:3])), out / "interpolation.png"),
        out / "report.json",
    )
    seconds = time.monotonic() - start
    scratch = scores | {"steps": result.step, "training_seconds": result.elapsed}
    report = _report(device, seed, how, seconds) | {"from_scratch": scratch}
    write_text(out / "report.json", json.dumps(report, indent=1))
    return DemoResult(out, written, None, scratch, seconds)


def _sample_sheet(
    sampler: Sampler,
    captions: list[str],
    how: SampleConfig,
    seed: int,
    truth: Float[Tensor, "n 3 H W"] | None = None,
) -> Any:
    """Captions in rows of pictures: unguided, guided, with the indicator off, and the truth if given."""
    guided = how if how.scale != 1 else replace(how, scale=GUIDED)
    modes = {"unguided": unguided(how), f"guided, scale {guided.scale:g}": guided}
    modes["indicator off"] = replace(how, scale=0.0)
    columns = [sampler.draw(captions, mode, torch.Generator().manual_seed(seed)) for mode in modes.values()]
    titles = list(modes)
    if truth is not None:
        columns, titles = [*columns, truth.float() / 255], [*titles, "the true picture"]
    images = torch.stack(columns, 1).flatten(0, 1)
    under = [caption if place == 0 else "" for caption in captions for place in range(len(titles))]
    return image_grid(images, len(titles), captions=under, column_titles=titles)


def _failures(scored: Scored, seed: int) -> Any:
    """Forty of the scored pictures, all tasks among them, each with its verdict."""
    chosen = (
        torch.randperm(len(scored.captions), generator=torch.Generator().manual_seed(seed))[:40].sort().values
    )
    words = [f"{'right' if scored.right[i] else 'WRONG'}: {scored.captions[i]}" for i in chosen.tolist()]
    return image_grid(scored.images[chosen], 10, captions=words)


def _walk(sampler: Sampler, how: SampleConfig, seed: int, captions: tuple[str, ...] = BETWEEN) -> Any:
    """Nine pictures from each caption to the next."""
    count = 9
    images = draw_between(sampler, captions, count, how, seed)
    rows = [f"{a} to {b}" for a, b in pairwise(captions)]
    return image_grid(images, count, row_titles=rows)


def _report(device: torch.device, seed: int, how: SampleConfig, seconds: float) -> dict[str, Any]:
    return {
        "seed": seed,
        "sampling": how.__dict__,
        "seconds": seconds,
        "device": describe_device(device),
        "versions": versions(),
        "commit": commit(),
    }
