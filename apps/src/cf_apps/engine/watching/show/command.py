"""`crossflow show RUN`: the command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cf_apps.engine.errors import RunError
from cf_apps.engine.files import write_text
from cf_apps.engine.watching.curves import Panel, draw, evaluation_panels, health_panels, loss_panels
from cf_apps.engine.watching.report import say
from cf_apps.engine.watching.show.page import page
from cf_apps.engine.watching.show.summary import Summary, read_summary
from cf_apps.engine.watching.show.tables import tables
from cf_apps.engine.watching.show.terminal import print_tables
from cf_apps.engine.watching.trackers import write_tensorboard, write_trackio

LARGEST = 4 * 2**20  # bytes of a picture that goes into the page
MOST = 12  # pictures of the run folder in the page


@dataclass(frozen=True)
class Show:
    """Tell of a run of any task, also while it trains: tables here, curves as PNG, and report.html."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder that train wrote."""
    out: Path | None = None
    """Folder for loss.png, health.png, scores.png and report.html; the run's own if not given."""
    tensorboard: Path | None = None
    """Write the log as TensorBoard event files into this folder as well."""
    trackio: str | None = None
    """Write the log into the trackio project of this name as well."""

    def run(self) -> None:
        summary = read_summary(self.model)
        print_tables(tables(summary))
        for path in write_report(summary, self.out or self.model):
            say(f"wrote {path}")
        if self.tensorboard is not None:
            say(f"wrote {write_tensorboard(summary, self.tensorboard)}")
        if self.trackio is not None:
            say(f"wrote {write_trackio(summary, self.trackio)!r} into the trackio project {self.trackio!r}")


def write_report(summary: Summary, folder: Path) -> list[Path]:
    """Draw what the log has into `folder` and write report.html beside it; returns the files.

    Raises RunError when the disk refuses.
    """
    drawn = {name: draw(panels, folder / name) for name, panels in pictures(summary).items() if panels}
    found = {path.name: path for path in _of_the_run(summary.run) if path.name not in pictures(summary)}
    report = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(report, page(summary, tables(summary), drawn | found))
    except OSError as error:
        raise RunError(f"cannot write {report}: {error.strerror or error}; choose another --out") from error
    return [*drawn.values(), report]


def pictures(summary: Summary) -> dict[str, list[Panel]]:
    """What is drawn, by the name of its file; without panels where the log has nothing of it yet."""
    return {
        "loss.png": loss_panels(summary.log["losses"]),
        "health.png": health_panels(summary.log["losses"]),
        "scores.png": evaluation_panels(summary.log["evaluation"]),
    }


def _of_the_run(run: Path) -> list[Path]:
    """Pictures that the run's commands left in its folder, the demo's for one."""
    return [path for path in sorted(run.glob("*.png")) if path.stat().st_size <= LARGEST][:MOST]
