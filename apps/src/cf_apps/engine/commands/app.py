"""A task as the command line sees it, and training it: the same story for every task."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch

from cf_apps.engine.commands.recipe import C, Recipe, TrainRequest, chosen_data, fit_config, named, overridden
from cf_apps.engine.errors import ConfigError, RunError
from cf_apps.engine.fit import FitResult, fit
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.precision import slow_precision
from cf_apps.engine.ranks.world import World
from cf_apps.engine.run import read_config
from cf_apps.engine.saving.checkpoint import checkpoints
from cf_apps.engine.saving.export import export, load_model
from cf_apps.engine.task import Task
from cf_apps.engine.watching.progress import Progress, Silence, progress_line


@dataclass(frozen=True)
class Setting:
    """Where and how a task is made ready.

    line: shows what takes long, such as encoding all pictures. resumed: the run folder that training goes on from,
    where a task reads what it measured on the data when the run began.
    """

    data: str
    device: torch.device
    seed: int
    line: Progress
    resumed: Path | None = None


@dataclass(frozen=True)
class Ready:
    """A task ready to train. notes: records with an 'event' for the run's log; said: lines for people, on stderr."""

    task: Task
    notes: Sequence[Mapping[str, Any]] = ()
    said: Sequence[str] = ()


@dataclass(frozen=True)
class Scoring:
    """What an evaluation is told. data: a name or a folder; split: `test` to report, `val` to choose by."""

    data: str
    split: Literal["test", "val"]
    how: SampleConfig
    seed: int
    line: Progress


S = TypeVar("S")
Columns = Mapping[str, Mapping[str, Any]]  # of a table: name of the column -> name of the row -> value
Pictures = Mapping[str, Any]  # name of the file, without .png -> a PIL image


@dataclass(frozen=True)
class App(Generic[C, S]):
    """One task: its name, its recipes, and the functions that the commands call.

    C: the type of its config, which must have a field `sample: SampleConfig`. S: its sampler, whatever `open` gives.

    prepare: reads the data, builds the modules and everything `Task` needs; refuses what is wrong (UserError,
        DataError) before the first step.
    parts: names of the modules that sampling needs; they are exported when training ends.
    open: a sampler from a run folder, see `task_run`.
    score: the columns of the table that `evaluate` prints.
    show: pictures that `demo` writes for people to look at.
    """

    name: str
    data: str
    """What --data takes, in words."""
    presets: Mapping[str, Callable[[], Recipe[C]]]
    prepare: Callable[[C, Setting], Ready]
    parts: Sequence[str]
    open: Callable[[Path, torch.device], S]
    score: Callable[[S, Scoring], Columns]
    show: Callable[[S, Scoring], Pictures]
    default: str = field(default="tiny")
    """The preset that is used if none is named."""


def train(
    app: App[Any, Any],
    request: TrainRequest,
    device: torch.device,
    label: str = "train",
    world: World | None = None,
) -> FitResult:
    """Train into request.out and export the averaged weights beside the checkpoints.

    world: the processes that train together, see `joined`; every one calls this, and rank 0 alone speaks and exports.
    Everything that can be known to be wrong is refused before the first step (UserError, DataError).
    """
    world = World.alone(device) if world is None else world
    recipe = overridden(named(app.presets, request.preset), request.overrides or {})
    data = chosen_data(request, recipe, app.data)
    training = fit_config(request, recipe)
    if training.recompute is not None:
        recipe = overridden(recipe, {_recompute_key(recipe): training.recompute})
    resumed = request.out if request.resume else None
    with progress_line(f"{label}: preparing") if world.main else Silence() as line:
        ready = app.prepare(recipe.model, Setting(data, device, request.seed, line, resumed))
    for sentence in [*slow_precision(device, training.precision), *ready.said] if world.main else ():
        print(sentence, file=sys.stderr)
    result = fit(
        ready.task,
        training,
        request.out,
        resume=request.resume,
        progress=progress_line(label),
        notes=ready.notes,
        world=world,
    )
    parts = [name for name in app.parts if name in ready.task.modules]
    # half the size; nobody can see the rounding
    world.on_main(lambda: export(request.out, parts, dtype=torch.float16))
    return result


def _recompute_key(recipe: Recipe[Any]) -> str:
    """Where a model's config says what its backbone computes twice; ConfigError for one without a backbone."""
    backbone = recipe.model.to_dict().get("backbone", {})
    for key, settings in (("backbone", backbone), ("backbone.dimr", backbone.get("dimr", {}))):
        if "recompute" in settings:
            return f"{key}.recompute"
    raise ConfigError("fit.recompute is for models with a backbone, this one has none; leave it out")


def task_run(run: Path, task: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(averaged weights by name, config.json) of a run folder of that task.

    Raises RunError for a folder that is no run, or another task's, saying which; CheckpointError for damaged weights.
    """
    kind = run_kind(read_config(run))
    if kind != task:
        what = f"a run of `crossflow {kind}`" if kind else "not a run that crossflow trained"
        raise RunError(f"{run} is {what}, this is `crossflow {task}`; give one of its run folders")
    return load_model(run)


def begun(setting: Setting, task: str) -> dict[str, Any] | None:
    """What a run that goes on wrote of its task when it began; None where training begins now.

    The weights are tied to what was measured then, on data that may have grown since. Raises RunError for a run of
    another task.
    """
    if setting.resumed is None or not checkpoints(setting.resumed):
        return None
    config = read_config(setting.resumed)
    if (kind := run_kind(config)) != task:
        raise RunError(f"{setting.resumed} is a run of `crossflow {kind}`; resume it with that")
    return config["task"]


def run_kind(config: Mapping[str, Any]) -> str | None:
    """The task that a run's config.json is of; runs from before tasks had names are text to image."""
    task = config.get("task", {})
    return task.get("name", "t2i" if "vocabulary" in task else None)


def run_data(run: Path) -> str | None:
    """What the run was trained on, as the user called it; None for an imported one."""
    return read_config(run).get("task", {}).get("data")
