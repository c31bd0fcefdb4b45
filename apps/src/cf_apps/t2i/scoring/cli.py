"""The commands of `crossflow t2i` that put a number on pictures: evaluate, and the search for a scale of guidance."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cf_apps.engine.commands.app import Scoring, run_data
from cf_apps.engine.commands.common import Drawing, shared_out
from cf_apps.engine.device import describe_device
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.run import commit, versions
from cf_apps.engine.watching.report import print_table, say
from cf_apps.t2i.app import score
from cf_apps.t2i.drawing.cli import Run, require_positive
from cf_apps.t2i.drawing.options import T2IDrawing, run_folder, run_name
from cf_apps.t2i.sample import Sampler
from cf_apps.t2i.scoring.geneval import OFFICIAL, PromptScoring, score_prompts
from cf_apps.t2i.scoring.guidance import INDICATOR, Guidances, measure_for, search
from cf_apps.t2i.scoring.guidance_report import write_search
from cf_apps.t2i.scoring.judges import JudgePaths
from cf_apps.t2i.weak import weak_velocity


@dataclass(frozen=True)
class Evaluate:
    """Score a run on held-out captions, or on prompts by networks of yours."""

    model: Run
    data: str | None = None
    """What to score on; the run's own data if not given."""
    split: Literal["test", "val"] = "test"
    """Captioned shapes: test to report, val to choose by."""
    prompts: str | None = None
    """geneval, judged by --detector, or a file of captions, by --clip."""
    detector: Path | None = None
    """A transformers detector's folder, or FastestDet's .pth."""
    clip: Path | None = None
    """A transformers CLIP's folder, or open_clip's weights."""
    architecture: str | None = None
    """Of open_clip's weights, e.g. ViT-B-32-quickgelu."""
    count: Annotated[int, tyro.conf.arg(aliases=["-n"])] = OFFICIAL
    """Pictures of each prompt."""
    out: Path | None = None
    """A JSON report."""
    draw: Annotated[T2IDrawing, tyro.conf.arg(name="")] = field(default_factory=T2IDrawing)

    def run(self) -> None:
        require_positive("-n", self.count)
        paths = JudgePaths(self.detector, self.clip, self.architecture)
        if self.prompts is None and paths != JudgePaths():
            raise ConfigError("--detector, --clip and --architecture judge prompts: give --prompts as well")
        on = self.prompts or data_of(self.model, self.data)
        with shared_out(self.draw.device, "drawing") as (world, line):
            sampler, how = self.draw.open(self.model, world.device)
            if self.prompts is not None:
                asked = PromptScoring(self.prompts, paths, how, line, self.count, self.draw.seed)
                columns = score_prompts(sampler, asked)
            else:
                columns = score(sampler, Scoring(on, self.split, how, self.draw.seed, line))
        if not world.main:
            return
        print_table(f"{self.model} on {on}", columns, self.out)
        for column in columns.values() if self.prompts is not None else ():
            say(f"by {column['measured_as']['protocol']}")  # without it the number says little


@dataclass(frozen=True)
class Guidance:
    """Find the scale of guidance, on captions of split val, and show what it does."""

    model: Run
    scales: Sequence[float] = (0.0, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    """1 is unguided, 0 what is guided away from."""
    weak: list[Path] = field(default_factory=list)
    """Checkpoints to search autoguidance by as well: RUN/checkpoints/step-00001000."""
    data: str | None = None
    """What to draw; the run's own data if not given."""
    captions: int = 120
    """How many, at each scale."""
    out: Path = Path("guidance")
    """A folder: guidance.json, guidance.png (the plot), strip.png."""
    draw: Annotated[Drawing, tyro.conf.arg(name="")] = field(default_factory=Drawing)

    def run(self) -> None:
        if self.draw.scale is not None:
            raise ConfigError(f"the search takes --scales, not --scale {self.draw.scale:g}")
        data, seed = data_of(self.model, self.data), self.draw.seed
        with shared_out(self.draw.device, "searching") as (world, line):
            sampler, how = T2IDrawing(**self.draw.__dict__).open(self.model, world.device)
            guidances = guidances_of(sampler, self.weak)
            measure = measure_for(data, sampler.model.config.image_size, self.captions, seed)
            found = search(sampler, guidances, self.scales, how, measure, line)
        if not world.main:
            return
        record = {
            "run": run_name(self.model),
            "data": data,
            "seed": seed,
            "sampling": {name: value for name, value in how.__dict__.items() if name != "scale"},
            "device": describe_device(sampler.model.device),
            "commit": commit(),
            "versions": versions(),
        }
        files = write_search(found, sampler, guidances, how, seed, self.out, record)
        print_table(f"{measure.name}, {len(measure.captions)} val captions of {data}", found.table())
        for line in (*found.said(), "look at", *(f"  {path}" for path in files)):
            say(line)


def data_of(model: str, given: str | None) -> str:
    """What a run is scored on. Raises ConfigError where neither the user nor the run says."""
    data = given or run_data(run_folder(model))
    if data is None:
        raise ConfigError(f"{model} was imported and has no data of its own; pass --data FOLDER")
    return data


def guidances_of(sampler: Sampler, weak: Sequence[Path]) -> Guidances:
    """The indicator, and autoguidance by each weak checkpoint."""
    by_weak = {f"autoguidance by {_short(path)}": weak_velocity(path, sampler) for path in weak}
    return {INDICATOR: None, **by_weak}


def _short(path: Path) -> str:
    """`ladder, step 300` for runs/ladder/checkpoints/step-00000300; the name of a run folder."""
    path = path.absolute()
    if path.parent.name != "checkpoints":
        return path.name
    return f"{path.parent.parent.name}, step {path.name.removeprefix('step-').lstrip('0')}"
