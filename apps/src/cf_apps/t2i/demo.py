"""`crossflow t2i demo`: score the shipped model, train one from scratch, and show both; or train on the emoji."""

import time
from dataclasses import replace
from pathlib import Path

import torch

from cf_apps.data.sources import EMOJI, SHAPES
from cf_apps.engine.commands.app import App, Columns, Pictures, Scoring, train
from cf_apps.engine.commands.common import finish_demo
from cf_apps.engine.commands.recipe import TrainRequest
from cf_apps.engine.device import choose_device
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.run import free_folder
from cf_apps.engine.watching.progress import progress_line
from cf_apps.t2i.app import APP
from cf_apps.t2i.config import T2IConfig
from cf_apps.t2i.drawing.options import shipped_run
from cf_apps.t2i.drawing.sheets import BETWEEN, SHOWN, sample_sheet, verdict_sheet, walk_sheet
from cf_apps.t2i.evaluate import score_composition
from cf_apps.t2i.sample import Sampler

PRESET_OF = {SHAPES: "tiny", EMOJI: "emoji"}


def demo(data: str, out: Path, minutes: float, seed: int, device: str) -> None:
    """Everything a newcomer wants to see, in `out`: `shapes` beside the shipped model, `emoji` from scratch only."""
    if data not in PRESET_OF:
        raise ConfigError(
            f"the demo knows the data {', '.join(PRESET_OF)}, not {data!r}; train on your own with t2i train"
        )
    start, out = time.monotonic(), free_folder(out)
    where = choose_device(device)
    app = beside_shipped(f"{minutes:g} min from scratch", seed, where) if data == SHAPES else APP
    request = TrainRequest(PRESET_OF[data], out, data, max_seconds=60 * minutes, seed=seed)
    finish_demo(app, train(app, request, where, f"training on {data}"), seed, start, device)


def beside_shipped(column: str, seed: int, device: torch.device) -> App[T2IConfig, Sampler]:
    """Text to image, whose tables and pictures have those of the shipped model, scored here and now, beside them."""
    ready = Sampler.from_run(shipped_run(), device)
    how = ready.model.config.sample
    with progress_line("drawing with the shipped model") as line:
        shipped = score_composition(ready, how, line, seed=seed)

    def score_both(fresh: Sampler, scoring: Scoring) -> Columns:
        scratch = score_composition(fresh, scoring.how, scoring.line, seed=seed, split=scoring.split)
        return {"shipped": shipped.table(), column: scratch.table()}

    def show_both(fresh: Sampler, scoring: Scoring) -> Pictures:
        return {
            "samples": sample_sheet(ready, SHOWN, how, seed),
            "samples_from_scratch": sample_sheet(fresh, SHOWN, scoring.how, seed),
            "scored": verdict_sheet(shipped, seed),
            "interpolation": walk_sheet(ready, BETWEEN, how, seed),
        }

    return replace(APP, score=score_both, show=show_both)
