"""The commands that every task has: train, evaluate, demo, and the options of drawing."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from cf_apps.engine.checks import require_seed
from cf_apps.engine.commands.app import App, Scoring, run_data, train
from cf_apps.engine.commands.find_lr import find_lr_command
from cf_apps.engine.commands.recipe import TrainRequest, parse_overrides
from cf_apps.engine.device import choose_device, describe_device
from cf_apps.engine.errors import ConfigError, RunError
from cf_apps.engine.files import write_text
from cf_apps.engine.fit import FitResult
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.ranks.spread import spread_over
from cf_apps.engine.ranks.world import World, joined
from cf_apps.engine.run import commit, free_folder, read_config, versions
from cf_apps.engine.watching.curves import curves
from cf_apps.engine.watching.log import read_log
from cf_apps.engine.watching.progress import Progress, Silence, progress_line
from cf_apps.engine.watching.render import save_png
from cf_apps.engine.watching.report import print_table, say

Run = Annotated[Path, tyro.conf.Positional]


@dataclass(frozen=True)
class Drawing:
    """How samples are drawn; what is not given comes from the run."""

    scale: float | None = None
    """Guidance: 1 is unguided, 0 the unconditional field."""
    steps: int | None = None
    """Steps of a fixed solver."""
    solver: str | None = None
    """euler, midpoint, heun, rk4; bosh3, dopri5, tsit5, dopri8 (adaptive)."""
    temperature: float | None = None
    """Of the noise in x_0; 0 draws from its mean."""
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        require_seed(self.seed)

    def over(self, run: SampleConfig) -> SampleConfig:
        """The run's own choice with what was given in its place."""
        names = ("scale", "steps", "solver", "temperature")
        return replace(run, **{n: getattr(self, n) for n in names if getattr(self, n) is not None})


@dataclass(frozen=True)
class TrainOptions:
    """The options of training; a task's `Train` adds its own."""

    out: Path
    """Run folder to make."""
    preset: str = "tiny"
    """A recipe by name; an unknown name lists them."""
    data: str | None = None
    """A built-in set by name, or a folder; the preset's own if not given."""
    steps: int | None = None
    max_seconds: float | None = None
    """A time budget instead of steps."""
    batch_size: int | None = None
    lr: float | None = None
    seed: int = 0
    resume: bool = False
    """Go on from the run's last checkpoint."""
    device: str = "auto"
    set: Annotated[list[str], tyro.conf.UseAppendAction] = field(default_factory=list)
    """KEY=VALUE of anything in the preset, e.g. loss.kl_weight=1e-5; may be repeated."""

    def request(self) -> TrainRequest:
        """What was asked for; ConfigError where it contradicts itself."""
        if self.steps is not None and self.max_seconds is not None:
            raise ConfigError("give --steps or --max-seconds, not both")
        return TrainRequest(
            self.preset, self.out, self.data, self.steps, self.max_seconds, self.batch_size, self.lr,
            self.seed, self.resume, parse_overrides(self.set),
        )  # fmt: skip


def say_how_it_ended(result: FitResult) -> None:
    """One line: finished or stopped, where, after how long."""
    state = "finished" if result.finished else "stopped; --resume goes on"
    say(f"{state} at step {result.step} after {result.elapsed:.0f} s: {result.run}")


def train_here(app: App[Any, Any], request: TrainRequest, device: str) -> None:
    """Train in the processes that torchrun started, or in this one, and say how it ended."""
    with joined(device) as world:
        result = train(app, request, world.device, world=world)
    if world.main:
        say_how_it_ended(result)


def sample_config(run: Path) -> SampleConfig:
    """How the run's own recipe draws."""
    return SampleConfig(**read_config(run)["task"]["config"]["sample"])


@contextmanager
def shared_out(device: str, label: str) -> Iterator[tuple[World, Progress]]:
    """The ranks that torchrun started, among which drawing and measuring are shared out, and rank 0's progress line."""
    with (
        joined(device) as world,
        spread_over(world),
        progress_line(label) if world.main else Silence() as line,
    ):
        yield world, line


def commands(app: App[Any, Any]) -> dict[str, type]:
    """`train`, `evaluate`, `demo` and `find-lr` of a task; it adds its own `sample`."""
    return {
        "demo": demo_command(app),
        "train": train_command(app),
        "evaluate": evaluate_command(app),
        "find-lr": find_lr_command(app),
    }


def train_command(app: App[Any, Any]) -> type:
    """`crossflow TASK train`"""

    presets = f"One of {', '.join(app.presets)}."
    sources = f"Takes {app.data}; the preset's own if not given."

    @dataclass(frozen=True)
    class Train(TrainOptions):
        """Train a preset into a run folder."""

        preset: Annotated[str, tyro.conf.arg(help=presets)] = app.default
        data: Annotated[str | None, tyro.conf.arg(help=sources)] = None

        def run(self) -> None:
            train_here(app, self.request(), self.device)

    return Train


def evaluate_command(app: App[Any, Any]) -> type:
    """`crossflow TASK evaluate`"""

    @dataclass(frozen=True)
    class Evaluate:
        """Score a run on held-out data."""

        model: Run
        data: str | None = None
        """What to score on; the run's own data if not given."""
        split: Literal["test", "val"] = "test"
        """test to report, val to choose by."""
        out: Path | None = None
        """A JSON report."""
        draw: Annotated[Drawing, tyro.conf.arg(name="")] = field(default_factory=Drawing)

        def run(self) -> None:
            data = self.data or run_data(self.model)
            with shared_out(self.draw.device, "drawing") as (world, line):
                sampler = app.open(self.model, world.device)
                if data is None:
                    raise ConfigError(f"{self.model} has no data of its own; pass --data with {app.data}")
                how = self.draw.over(sample_config(self.model))
                columns = app.score(sampler, Scoring(data, self.split, how, self.draw.seed, line))
            if world.main:
                print_table(f"{self.model} on {data}, {self.split}", columns, self.out)

    return Evaluate


def demo_command(app: App[Any, Any]) -> type:
    """`crossflow TASK demo`"""

    @dataclass(frozen=True)
    class Demo:
        """Train from scratch for a few minutes, score on held-out data, draw and report."""

        preset: str = app.default
        data: str | None = None
        out: Path = Path(f"runs/{app.name}-demo")
        minutes: float = 5.0
        """Training time."""
        seed: int = 0
        device: str = "auto"

        def run(self) -> None:
            request = TrainRequest(
                self.preset, free_folder(self.out), self.data, max_seconds=60 * self.minutes, seed=self.seed
            )
            start, device = time.monotonic(), choose_device(self.device)
            result = train(app, request, device, f"training {self.preset}")
            finish_demo(app, result, self.seed, start, self.device)

    return Demo


def finish_demo(app: App[Any, Any], result: FitResult, seed: int, start: float, device: str) -> None:
    """Score a run that was just trained, write its pictures and report.json into its folder, and say where they are.

    start: time.monotonic() when the demo began.
    """
    run, where = result.run, choose_device(device)
    sampler, how, data = app.open(run, where), sample_config(run), run_data(run)
    assert data is not None
    with progress_line("scoring") as line:
        scoring = Scoring(data, "test", how, seed, line)
        columns = app.score(sampler, scoring)
        pictures = app.show(sampler, scoring)
    files = [save_png(picture, run / f"{name}.png") for name, picture in pictures.items()]
    if result.step >= read_config(run)["fit"]["log_every"]:  # else there is no line to draw yet
        files.append(curves(read_log(run), run / "loss.png"))
    seconds = time.monotonic() - start
    report = {
        "device": describe_device(where),
        "commit": commit(),
        "versions": versions(),
        "seed": seed,
        "steps": result.step,
        "training_seconds": result.elapsed,
        "seconds": seconds,
        "scores": columns,
    }
    try:
        write_text(run / "report.json", json.dumps(report, indent=1))
    except OSError as error:
        raise RunError(f"cannot write {run / 'report.json'}: {error.strerror or error}") from error
    print_table(f"{app.name} on {data}, held out", columns)
    say(f"{result.step} steps in {result.elapsed:.0f} s, {seconds:.0f} s in all; look at")
    for path in (*files, run / "report.json"):
        say(f"  {path}")
