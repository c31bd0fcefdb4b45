"""The command line of every table: train what is missing, measure, write the report; a second start goes on."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import tyro
from cf_apps.engine.errors import UserError
from cf_apps.engine.ranks.world import joined
from cf_apps.engine.watching.report import say

from cf.scale import Scale
from cf.scales import SCALES
from cf.spec import Table
from cf.store import Store
from cf.work import todos, work

RESULTS = Path(__file__).parents[2] / "results" / "crossflow"


@dataclass(frozen=True)
class Options:
    scale: Literal["tiny", "small", "paper"] = "tiny"
    seeds: int | None = None
    """Seeds 0, 1, ...; the scale's own number if not given."""
    data: str | None = None
    """Data in place of the scale's own; `paper` needs it."""
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
        scale = SCALES[self.scale]()
        changes = {name: value for name in ("seeds", "data") if (value := getattr(self, name)) is not None}
        return replace(scale, **changes)

    def store(self, scale: Scale) -> Store:
        return Store(self.out / scale.name / "measured", self.runs / scale.name)


def main(*tables: Table) -> None:
    """The command line of one script."""
    sys.exit(
        run(
            {table.key: table for table in tables},
            tyro.cli(Options, description=sys.modules["__main__"].__doc__),
        )
    )


def run(tables: Mapping[str, Table], options: Options) -> int:
    """Everything that is asked for; the exit code."""
    scale = options.sized()
    store = options.store(scale)
    todo = todos(tables.values(), scale)
    try:
        if options.jobs > 1 and not options.report_only:
            _shared_out(options.jobs)
        elif not options.report_only:
            with joined(options.device) as world:
                work(todo, scale, store, world)
    except UserError as error:
        say(f"error: {error}")
        return 1
    return 0


def _shared_out(jobs: int) -> None:
    """The same command in so many processes of one thread each; they choose their work by themselves."""
    arguments = [word for word in sys.argv if not word.startswith("--jobs")]
    if "--jobs" in sys.argv:
        place = sys.argv.index("--jobs")
        arguments = [*sys.argv[:place], *sys.argv[place + 2 :]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    workers = [subprocess.Popen([sys.executable, *arguments], env=environment) for _ in range(jobs)]
    for worker in workers:
        worker.wait()


if threads := os.environ.get("OMP_NUM_THREADS"):
    torch.set_num_threads(int(threads))
