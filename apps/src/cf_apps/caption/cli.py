"""The commands of `crossflow caption`."""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from cf_apps.caption.app import APP, DATA, TEXT_APP
from cf_apps.caption.demo import demo, evaluated_text
from cf_apps.caption.evaluate import JavaTools, score
from cf_apps.caption.presets import PRESETS, TEXT_PRESETS
from cf_apps.caption.sample import Captioner
from cf_apps.caption.sources import Held
from cf_apps.data.pictures import fitted, read_picture
from cf_apps.engine.commands.common import (
    Drawing,
    Run,
    TrainOptions,
    evaluate_command,
    sample_config,
    train_command,
    train_here,
)
from cf_apps.engine.commands.find_lr import find_lr_command
from cf_apps.engine.device import choose_device
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.run import read_config
from cf_apps.engine.watching.report import print_table, say


@dataclass(frozen=True)
class Demo:
    """Train the text autoencoder and then the flow for a few minutes, score and caption held-out pictures."""

    preset: str = "tiny"
    data: str | None = None
    out: Path = Path("runs/caption-demo")
    minutes: float = 10.0
    """Training time of both together."""
    seed: int = 0
    device: str = "auto"

    def run(self) -> None:
        demo(self.preset, self.data, self.out, self.minutes, self.seed, self.device)


@dataclass(frozen=True)
class Train(TrainOptions):
    text: Path | None = None
    """Run folder of `crossflow caption train-text`, whose latents the flow learns to reach."""

    def run(self) -> None:
        request = self.request()
        text = self.text
        if text is None and self.resume:
            text = Path(read_config(self.out)["task"]["config"]["text"])
        if text is not None:
            request = replace(request, overrides={**(request.overrides or {}), "text": str(text.resolve())})
        train_here(APP, request, self.device)


Train.__doc__ = f"Train a flow from pictures to captions: {', '.join(PRESETS)}. --data takes {DATA}."


@dataclass(frozen=True)
class Sample:
    """Caption pictures with a trained run."""

    model: Run
    pictures: Annotated[list[Path], tyro.conf.Positional]
    count: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 1
    """Captions of each picture."""
    draw: Annotated[Drawing, tyro.conf.arg(name="")] = field(default_factory=Drawing)

    def run(self) -> None:
        if self.count < 1:
            raise ConfigError(f"-n must be at least 1, got {self.count}")
        if not self.pictures:
            raise ConfigError("give at least one picture")
        captioner = Captioner.from_run(self.model, choose_device(self.draw.device))
        side = captioner.model.config.image_size
        images = torch.stack([fitted(read_picture(path), side, side) for path in self.pictures])
        written = captioner.captions(
            images.repeat_interleave(self.count, 0),
            self.draw.over(sample_config(self.model)),
            torch.Generator().manual_seed(self.draw.seed),
        )
        for place, path in enumerate(self.pictures):
            captions = written[place * self.count : (place + 1) * self.count]
            say(f"{path}: {captions[0]}" if self.count == 1 else "\n  ".join([f"{path}:", *captions]))


EvaluateOptions: Any = evaluate_command(APP)


@dataclass(frozen=True)
class Evaluate(EvaluateOptions):
    """Score a run on held-out pictures."""

    tools: Annotated[JavaTools, tyro.conf.arg(name="")] = field(default_factory=JavaTools)

    def run(self) -> None:
        app = replace(APP, score=partial(score, protocol=self.tools.protocol))
        evaluate_command(app)(self.model, self.data, self.split, self.out, self.draw).run()


@dataclass(frozen=True)
class EvaluateText:
    """Score a text autoencoder: how many held-out captions come back whole."""

    model: Run
    data: str | None = None
    """What to score on; the run's own data if not given."""
    split: Held = "test"
    out: Path | None = None
    """A JSON report."""
    seed: int = 0
    device: str = "auto"

    def run(self) -> None:
        columns = evaluated_text(self.model, self.data, self.split, self.seed, choose_device(self.device))
        print_table(f"{self.model}, {self.split}", columns, self.out)


TrainText = train_command(TEXT_APP)
TrainText.__doc__ = (
    f"Train a text autoencoder, which comes first: {', '.join(TEXT_PRESETS)}. --data takes {DATA}."
)

COMMANDS = {
    "demo": Demo,
    "train-text": TrainText,
    "evaluate-text": EvaluateText,
    "train": Train,
    "sample": Sample,
    "evaluate": Evaluate,
    "find-lr": find_lr_command(APP),
}
