"""The command line of every table: train what is missing, measure, write the report; a second start goes on."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from cf_apps.data.captioned import DataError
from cf_apps.engine.commands.recipe import parse_overrides
from cf_apps.engine.errors import ConfigError, UserError
from cf_apps.engine.ranks.world import joined
from cf_apps.engine.watching.report import say
from cf_apps.t2i.scoring.judges import JudgePaths

from cf.scale import WHERE, Scale
from cf.scales import SCALES
from cf.spec import Table
from cf.store import Store
from cf.work import todos, work

RESULTS = Path(__file__).parents[2] / "results" / "crossflow"
WORKER = (
    "CF_BENCH_WORKER"  # set for the processes of --jobs, which leave the report to the one that started them
)
Tables = Callable[[Scale], Mapping[str, Table]]
"""The tables of a scale, by the names of their reports."""


@dataclass(frozen=True)
class Options:
    scale: Literal["tiny", "small", "paper"] = "tiny"
    seeds: int | None = None
    """Seeds 0, 1, ...; the scale's own number if not given."""
    data: str | None = None
    """Captioned pictures in place of the scale's own; `paper` needs them. Depth's come by --data-of."""
    data_of: Annotated[list[str], tyro.conf.UseAppendAction] = field(default_factory=list)
    """NAME=DATA for trainings whose names begin with NAME: depth=kitti:FOLDER; may be repeated."""
    held_out: str | None = None
    """Pairs to measure text to image on, such as COCO's; else a share of the data that training leaves out."""
    set: Annotated[list[str], tyro.conf.UseAppendAction] = field(default_factory=list)
    """KEY=VALUE in every training that has the key, or NAME:KEY=VALUE in those whose names begin with NAME:
    codec.path=FOLDER, t2i-t5:language.path=FOLDER, fit.steps=100; may be repeated."""
    inception: Path | None = None
    """pt_inception-2015-12-05-6726825d.pth, for FIDs."""
    clip: Path | None = None
    """A transformers CLIP's folder, or open_clip's weights, for CLIP scores."""
    architecture: str | None = None
    """Of open_clip's weights, e.g. ViT-B-32-quickgelu."""
    detector: Path | None = None
    """A transformers detector's folder, or FastestDet's .pth, for GenEval."""
    device: str = "auto"
    jobs: int = 1
    """Processes that share the trainings, one thread each; 1 is this one with all threads. For a CPU."""
    runs: Path = Path("runs/benchmarks")
    """Where trainings go: some gigabytes. They may be deleted, the numbers stay in --out."""
    out: Path = RESULTS
    """Where numbers, reports and plots go, in a folder named after the scale."""
    report_only: bool = False
    """Train nothing: write the reports of what is there."""

    def sized(self) -> Scale:
        """The scale with what was given in its place. Raises ConfigError for what cannot be read."""
        return replace(
            SCALES[self.scale](),
            **{name: value for name in ("seeds", "data") if (value := getattr(self, name)) is not None},
            data_of=parse_data(self.data_of),
            settings=parse_settings(self.set),
            held_out=self.held_out,
            inception=self.inception,
            judges=JudgePaths(self.detector, self.clip, self.architecture),
        )

    def store(self, scale: Scale) -> Store:
        return Store(self.out / scale.name / "measured", self.runs / scale.name)


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """['codec.path=x', 't2i-t5:fit.steps=9'] -> {key: value}, the values as `parse_overrides` reads them."""
    values = {}
    for pair in pairs:
        head, equals, value = pair.partition("=")
        where, colon, key = head.rpartition(WHERE)
        found = parse_overrides([f"{key}{equals}{value}"])
        values |= {f"{where}{colon}{name}": value for name, value in found.items()}
    return values


def parse_data(pairs: list[str]) -> dict[str, str]:
    """['depth=kitti:FOLDER', ...] -> {name: data}"""
    values = {}
    for pair in pairs:
        name, equals, data = pair.partition("=")
        if not (name and equals and data):
            raise ConfigError(f"--data-of takes NAME=DATA, got {pair!r}; for example depth=kitti:FOLDER")
        values[name] = data
    return values


def main(table: Callable[[Scale], Table]) -> None:
    """The command line of one script; its report is named after it."""
    script = sys.modules["__main__"]
    name = Path(script.__file__ or "").stem.removeprefix("cf_")
    main_all(lambda scale: {name: table(scale)})


def main_all(tables: Tables) -> None:
    """The command line of several tables."""
    sys.exit(run(tables, tyro.cli(Options, description=sys.modules["__main__"].__doc__)))


def run(tables: Tables, options: Options) -> int:
    """Everything that is asked for; the exit code."""
    try:
        return _run(tables, options)
    except (UserError, DataError) as error:
        say(f"error: {error}")
        return 1


def _run(tables: Tables, options: Options) -> int:
    scale = options.sized()
    store, made = options.store(scale), tables(scale)
    code, is_main = 0, True
    if not options.report_only:
        scale.require(row.training for table in made.values() for row in table.rows)
        if options.jobs > 1:
            code = _shared_out(options.jobs)
        else:
            with joined(options.device) as world:
                work(todos(made.values(), scale), scale, store, world)
            is_main = world.main
    if is_main and WORKER not in os.environ:
        from cf.reports.report import write_reports  # the plots' libraries are slow to load

        for file in write_reports(made, scale, store, options.out / scale.name):
            say(f"wrote {file}")
    return code


def _shared_out(jobs: int) -> int:
    """The same command in so many processes of one thread each; they choose their work by themselves."""
    arguments = [word for word in sys.argv if not word.startswith("--jobs=")]
    if "--jobs" in arguments:
        place = arguments.index("--jobs")
        arguments = [*arguments[:place], *arguments[place + 2 :]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", WORKER: "1"}
    workers = [subprocess.Popen([sys.executable, *arguments], env=environment) for _ in range(jobs)]
    return max(abs(worker.wait()) for worker in workers)


if threads := os.environ.get("OMP_NUM_THREADS"):
    torch.set_num_threads(int(threads))
