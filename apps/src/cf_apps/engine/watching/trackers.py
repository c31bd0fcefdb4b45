"""A run's log for those who look at runs in TensorBoard or trackio: both read what log.jsonl has."""

import importlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import ModuleType

from cf_apps.engine.errors import ConfigError, RunError
from cf_apps.engine.watching.curves import ABOUT_THE_RUN, is_finite
from cf_apps.engine.watching.show.summary import Summary

OURS = (
    ".crossflow"  # at the end of our event files' names, so that a second writing takes the first one's place
)


def scalars(summary: Summary) -> Iterator[tuple[int, float | None, dict[str, float]]]:
    """(step, seconds of training, numbers by tag) of each record, in the order of the steps.

    Tags: losses/NAME, stats/NAME, evaluation/NAME, and the record's own numbers (lr, grad_norm, ...) under run/NAME.
    seconds: None for evaluations, which do not say. What is not a finite number is left out.
    """
    records = [*summary.log["losses"], *summary.log["evaluation"]]
    for record in sorted(records, key=lambda record: record["step"]):
        parts = {kind: record.get(kind, {}) for kind in ("losses", "stats", "evaluation")}
        parts["run"] = {name: record[name] for name in ABOUT_THE_RUN if name in record}
        tagged = {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}
        numbers = {tag: float(value) for tag, value in tagged.items() if is_finite(value)}
        seconds = record.get("elapsed")
        yield record["step"], seconds if is_finite(seconds) else None, numbers


def write_tensorboard(summary: Summary, folder: Path) -> Path:
    """Write the log as an event file into FOLDER/NAME-OF-THE-RUN, which is returned.

    A second call replaces what the first one wrote. Needs `tensorboard`; raises ConfigError, naming it, where
    it is missing, and RunError when the disk refuses.
    """
    _needed("tensorboard")
    writers = importlib.import_module("torch.utils.tensorboard")  # torch's, on top of it
    place, start = folder / summary.run.resolve().name, _start(summary)
    try:
        before = list(place.glob(f"events.out.tfevents.*{OURS}"))
        with writers.SummaryWriter(str(place), filename_suffix=OURS) as writer:
            seconds = 0.0
            for step, elapsed, numbers in scalars(summary):
                seconds = seconds if elapsed is None else elapsed
                for tag, value in numbers.items():
                    writer.add_scalar(tag, value, step, walltime=start + seconds)
        for path in before:
            path.unlink()
    except OSError as error:
        raise RunError(f"cannot write {place}: {error.strerror or error}; choose another folder") from error
    return place


def write_trackio(summary: Summary, project: str) -> str:
    """Write the log into a trackio project, as one more run, called after the run folder and the step; returns that.

    Needs `trackio`; raises ConfigError, naming it, where it is missing, or for a project it cannot have.
    """
    trackio = _needed("trackio")
    name = f"{summary.run.resolve().name} at step {summary.step}"
    try:
        # without what this machine is busy with now: that is not the run's
        trackio.init(
            project=project,
            name=name,
            config=dict(summary.part("fit")),
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
    except ValueError as error:
        raise ConfigError(f"trackio cannot open the project {project!r}: {error}") from error
    for step, _, numbers in scalars(summary):
        trackio.log(numbers, step=step)
    trackio.finish()
    return name


def _needed(library: str) -> ModuleType:
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ConfigError(
            f"--{library} needs the package {library} ({error}): pip install {library}"
        ) from error


def _start(summary: Summary) -> float:
    """When the run was first started, in seconds of the epoch; 0 where config.json does not say."""
    try:
        return datetime.fromisoformat(summary.starts[0][0]).timestamp()
    except (IndexError, ValueError):
        return 0.0
