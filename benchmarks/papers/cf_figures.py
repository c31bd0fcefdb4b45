"""A page of CrossFlow's figures, from trainings that cf_bench.py has made; it trains nothing.

uv run python benchmarks/papers/cf_figures.py --scale tiny --runs runs/benchmarks --out benchmarks/results/crossflow
"""

import sys
from dataclasses import dataclass

import tyro
from cf.command import Options
from cf.figures.make import make
from cf.figures.stage import Stage
from cf_apps.data.captioned import DataError
from cf_apps.engine.device import choose_device
from cf_apps.engine.errors import UserError
from cf_apps.engine.watching.report import say


@dataclass(frozen=True)
class FigureOptions(Options):
    """As the trainings were made with; where these are found, and where the page goes."""

    seed: int = 0
    """Whose trainings are shown."""
    jobs: tyro.conf.Suppress[tyro.conf.Fixed[int]] = 1
    report_only: tyro.conf.Suppress[tyro.conf.Fixed[bool]] = True


def main(options: FigureOptions) -> int:
    """Draw everything that is there into OUT/SCALE; the exit code."""
    try:
        scale = options.sized()
        stage = Stage(scale, options.store(scale), options.seed, choose_device(options.device))
        say(f"wrote {make(stage, options.out / scale.name)}")
    except (UserError, DataError) as error:
        say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(FigureOptions, description=__doc__)))
