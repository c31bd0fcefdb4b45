"""The commands of `crossflow t2i`."""

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from cf_apps.data.sources import EMOJI, SHAPES
from cf_apps.engine.app import Scoring, run_data
from cf_apps.engine.commands import Drawing, train_command
from cf_apps.engine.device import choose_device
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.progress import progress_line
from cf_apps.engine.render import image_grid, save_png
from cf_apps.report import print_table, say
from cf_apps.t2i.app import APP, score
from cf_apps.t2i.arithmetic import draw_between, draw_sum, parse_sum
from cf_apps.t2i.demo import demo, shipped_run
from cf_apps.t2i.import_public import ImportRequest, import_public, kind_of, missing
from cf_apps.t2i.sample import Sampler

SHIPPED = "tiny"  # the name by which the model inside the package is called
Run = Annotated[str, tyro.conf.Positional]


@dataclass(frozen=True)
class Demo:
    """Score the shipped model, train the same from scratch, draw and report both."""

    data: Annotated[str, tyro.conf.arg(metavar=f"{SHAPES}|{EMOJI}")] = SHAPES
    """shapes, or emoji (from scratch only)."""
    out: Path = Path("runs/t2i-demo")
    minutes: float = 5.0
    """Training time of the model from scratch."""
    seed: int = 0
    device: str = "auto"

    def run(self) -> None:
        result = demo(self.data, self.out, self.minutes, self.seed, choose_device(self.device))
        columns = {"shipped": result.shipped, f"{self.minutes:g} min from scratch": result.scratch}
        print_table(
            "held-out captions", {name: scores for name, scores in columns.items() if scores is not None}
        )
        say(f"{result.seconds:.0f} s in all; look at")
        for path in result.files:
            say(f"  {path}")


@dataclass(frozen=True)
class Sample:
    """Draw captions with a trained run (or `tiny`, the model that ships with the package)."""

    model: Run
    captions: Annotated[list[str], tyro.conf.Positional]
    count: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 4
    """Pictures of each caption."""
    out: Path = Path("samples.png")
    draw: Annotated[Drawing, tyro.conf.arg(name="")] = field(default_factory=Drawing)

    def run(self) -> None:
        if self.count < 1:
            raise ConfigError(f"-n must be at least 1, got {self.count}")
        if not self.captions:
            raise ConfigError("give at least one caption, in quotes")
        sampler, how = _open(self.model, self.draw)
        generator = torch.Generator().manual_seed(self.draw.seed)
        images = sampler.draw([text for text in self.captions for _ in range(self.count)], how, generator)
        under = [text if place == 0 else "" for text in self.captions for place in range(self.count)]
        say(f"wrote {save_png(image_grid(images, self.count, captions=under), self.out)}")


@dataclass(frozen=True)
class Evaluate:
    """Score a run on held-out captions."""

    model: Run
    data: str | None = None
    """What to score on; the run's own data if not given."""
    split: Literal["test", "val"] = "test"
    """Captioned shapes: test to report, val to choose by."""
    out: Path | None = None
    """A JSON report."""
    draw: Annotated[Drawing, tyro.conf.arg(name="")] = field(default_factory=Drawing)

    def run(self) -> None:
        sampler, how = _open(self.model, self.draw)
        data = self.data or run_data(_folder(self.model))
        if data is None:
            raise ConfigError(f"{self.model} was imported and has no data of its own; pass --data FOLDER")
        with progress_line("drawing") as line:
            columns = score(sampler, Scoring(data, self.split, how, self.draw.seed, line))
        print_table(f"{self.model} on {data}", columns, self.out)


@dataclass(frozen=True)
class Interpolate:
    """Draw the way from each caption to the next."""

    model: Run
    captions: Annotated[list[str], tyro.conf.Positional]
    count: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 9
    """Pictures on the way, ends included."""
    out: Path = Path("interpolation.png")
    draw: Annotated[Drawing, tyro.conf.arg(name="")] = field(default_factory=Drawing)

    def run(self) -> None:
        sampler, how = _open(self.model, self.draw)
        images = draw_between(sampler, self.captions, self.count, how, self.draw.seed)
        rows = [f"{a} to {b}" for a, b in pairwise(self.captions)]
        say(f"wrote {save_png(image_grid(images, self.count, row_titles=rows), self.out)}")


@dataclass(frozen=True)
class Arithmetic:
    """Draw a sum of captions: crossflow t2i arithmetic RUN "a red circle" + "a square" - "a circle"."""

    model: Run
    terms: Annotated[list[str], tyro.conf.Positional]
    out: Path = Path("arithmetic.png")
    draw: Annotated[Drawing, tyro.conf.arg(name="")] = field(default_factory=Drawing)

    def run(self) -> None:
        plus, minus = parse_sum(self.terms)
        sampler, how = _open(self.model, self.draw)
        images = draw_sum(sampler, plus, minus, how, self.draw.seed)
        under = [*(f"+ {text}" for text in plus), *(f"- {text}" for text in minus), "= the sum"]
        say(f"wrote {save_png(image_grid(images, len(images), captions=under), self.out)}")


@dataclass(frozen=True)
class Import:
    """Make a run of a public CrossFlow checkpoint, to draw with."""

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """A released .pth file, or nnet.pth or nnet_ema.pth of the public trainer."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder to make."""
    language: str | None = None
    """Folder or hub id of its language model: CLIP ViT-L/14 or T5-v1.1-XXL, as the table says."""
    codec: str | None = None
    """Its autoencoder: a diffusers folder, or the public autoencoder_kl.pth."""
    language_model: Literal["clip", "t5-released"] | None = None
    """Taken from the file if not given."""
    fp16: bool = False
    """Half the size."""

    def run(self) -> None:
        request = ImportRequest(
            self.checkpoint, self.out, self.language, self.codec, self.language_model, self.fp16
        )
        result = import_public(request, progress_line("import"))
        print_table(kind_of(result.config), result.table())
        say(f"wrote {result.run}")
        for sentence in missing(result.config):
            say(sentence)


def _folder(name: str) -> Path:
    """A run folder, or the shipped model by its name."""
    return shipped_run() if name == SHIPPED and not Path(name).exists() else Path(name)


def _open(name: str, draw: Drawing) -> tuple[Sampler, SampleConfig]:
    sampler = Sampler.from_run(_folder(name), choose_device(draw.device))
    return sampler, draw.over(sampler.model.config.sample)


COMMANDS = {
    "demo": Demo,
    "train": train_command(APP),
    "sample": Sample,
    "evaluate": Evaluate,
    "interpolate": Interpolate,
    "arithmetic": Arithmetic,
    "import": Import,
}
