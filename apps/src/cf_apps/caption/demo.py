"""`crossflow caption demo`: both trainings, one after the other, in one time budget."""

import time
from pathlib import Path

import torch

from cf_apps.caption.app import APP, TEXT_APP
from cf_apps.caption.sources import Held
from cf_apps.engine.commands.app import Columns, Scoring, run_data, train
from cf_apps.engine.commands.common import finish_demo
from cf_apps.engine.commands.recipe import TrainRequest, named
from cf_apps.engine.device import choose_device
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.run import free_folder
from cf_apps.engine.watching.progress import progress_line
from cf_apps.engine.watching.report import print_table

TEXT_SHARE = (
    0.25  # of the time; the text autoencoder is the easier part, and the flow can be no better than it
)


def demo(preset: str, data: str | None, out: Path, minutes: float, seed: int, device: str) -> None:
    """Train into out/text and out/caption, report how many held-out captions come back and how good new ones are."""
    start, where, out = time.monotonic(), choose_device(device), free_folder(out)
    named(APP.presets, preset)  # refuses an unknown name before the first training
    seconds = {TEXT_APP.name: 60 * minutes * TEXT_SHARE, APP.name: 60 * minutes * (1 - TEXT_SHARE)}
    request = TrainRequest(preset, out / "text", data, max_seconds=seconds[TEXT_APP.name], seed=seed)
    text = train(TEXT_APP, request, where, "text autoencoder").run
    print_table("held-out captions through the latent", evaluated_text(text, None, "test", seed, where))
    request = TrainRequest(
        preset, out / "caption", data, max_seconds=seconds[APP.name], seed=seed,
        overrides={"text": str(text.resolve())},
    )  # fmt: skip
    finish_demo(APP, train(APP, request, where, "flow"), seed, start, device)


def evaluated_text(run: Path, data: str | None, split: Held, seed: int, device: torch.device) -> Columns:
    """The scores of a text run on its own data, or on other."""
    with progress_line("reading back") as line:
        scoring = Scoring(data or str(run_data(run)), split, SampleConfig(), seed, line)
        return TEXT_APP.score(TEXT_APP.open(run, device), scoring)
