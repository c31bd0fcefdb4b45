"""The training loop. It knows no task: a task hands it modules, batches and losses by name."""

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cf_apps.engine.config import FitConfig
from cf_apps.engine.device import describe_device
from cf_apps.engine.ema import Ema
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.faults import explained_memory, stop_request
from cf_apps.engine.guards import Guard
from cf_apps.engine.optim import clip_gradients, set_learning_rate, trained_parameters
from cf_apps.engine.precision import autocast
from cf_apps.engine.prefetch import Prefetch
from cf_apps.engine.ranks.draws import step_draws
from cf_apps.engine.ranks.parallel import Sharing, shared
from cf_apps.engine.ranks.world import World
from cf_apps.engine.run import open_run
from cf_apps.engine.saving.checkpoint import check_room
from cf_apps.engine.saving.saver import Saver
from cf_apps.engine.saving.state import TrainState
from cf_apps.engine.seeds import seed_torch
from cf_apps.engine.task import Losses, Task
from cf_apps.engine.watching.log import Log, NoLog, Window
from cf_apps.engine.watching.progress import Progress, Silence


@dataclass(frozen=True)
class FitResult:
    """How a run ended. `ema.swapped_in()` puts the averaged weights into the task's modules."""

    run: Path
    step: int
    elapsed: float
    """Seconds of training, those before a resume included."""
    finished: bool
    """False: SIGTERM or Ctrl-C came; the run is saved and can be resumed."""
    ema: Ema


def fit(
    task: Task,
    config: FitConfig,
    run: Path,
    *,
    resume: bool = False,
    evaluate: Callable[[int], Mapping[str, float]] | None = None,
    progress: Progress | None = None,
    notes: Sequence[Mapping[str, Any]] = (),
    clock: Callable[[], float] = time.monotonic,
    world: World | None = None,
) -> FitResult:
    """Train `task` into the folder `run`; with `resume`, go on from its last checkpoint as if never stopped.

    evaluate: called with the step every `config.evaluate_every` steps, the averaged weights in the modules;
        its numbers go into the log. With several processes every one calls it, and rank 0's numbers count.
    progress: shows how it goes, `progress_line("train")` for instance; nothing is shown without.
    notes: records with an 'event' that go into the log before the first step (samples that were skipped, say).
    clock: seconds; what `max_seconds` is measured with.
    world: the processes that train together, see `joined`; None: this one alone. Each has the same task on its own
        device, and all train on the same batches, samples and random numbers as one process does.

    Raises UserError for whatever the user can repair: a folder that is not a run, a checkpoint of another
    model, a full disk, too little memory, a loss that is not finite. With several processes every one raises it.
    """
    device = next(task.modules.parameters()).device
    world = World.alone(device) if world is None else world
    _require_rows(config, world)
    sharing = shared(task.modules, config, world)
    state = TrainState.fresh(task, config)
    saver = Saver(run, config.keep_last, config.keep_every, world)
    changed = _open(task, config, run, resume, state, saver, world)
    parameters = list(trained_parameters(task.modules).values())
    start = clock() - state.elapsed
    with (
        Log(run, state.step) if world.main else NoLog() as log,
        progress if progress is not None and world.main else Silence() as line,
        stop_request() as stop,
        saver,  # left before the handler of signals is: a second SIGTERM must not cut the last save
        torch.random.fork_rng(
            [device] if device.type == "cuda" else []
        ),  # the loop seeds torch's own generators
        Prefetch(partial(_batch, task, world), _plan(config, state.step), config.prefetch) as batches,
    ):
        for note in notes:
            log.write({"step": state.step, **note})
        if changed:
            log.write({"step": state.step, "event": "resumed with other settings", "changed": changed})
        guard = Guard(config, task, run, log, world)
        guard.load(state.extra.get("guard", {}))
        window, saved_at = Window(state.step, state.elapsed, config.batch_size, world), state.elapsed
        task.modules.train()
        stopped = world.any(bool(stop))
        while (done := config.progress(state.step, state.elapsed)) < 1 and not stopped:
            lr = config.learning_rate(state.step, done)
            set_learning_rate(state.optimizer, lr)
            with explained_memory(config):
                losses, weight = _gradients(task, config, world, sharing, batches, state.step, done)
                norm = clip_gradients(parameters, config.clip_norm)
                if guard.admit(losses, norm, state.step, _places(config, world, state.step), weight):
                    state.optimizer.step()
                    state.ema.update()
                    window.add(losses, norm, weight)
                state.optimizer.zero_grad()
            state.step += 1
            stopped, state.elapsed = _agreed(world, bool(stop), clock() - start)

            if state.step % config.log_every == 0:
                record = window.record(state.step, state.elapsed, lr, batches.waited)
                log.write(record)
                guard.watch(record)
            line.show(config.progress(state.step, state.elapsed), window.text)
            if evaluate is not None and config.evaluate_every and state.step % config.evaluate_every == 0:
                log.write({"step": state.step, "evaluation": _evaluated(evaluate, task, state, sharing)})
            if _save_due(config, state, saved_at):
                state.extra["guard"] = guard.numbers()
                saver.save(state)
                saved_at = state.elapsed
        state.extra["guard"] = guard.numbers()
        saver.save(state)
    return FitResult(run, state.step, state.elapsed, finished=done >= 1, ema=state.ema)


def _require_rows(config: FitConfig, world: World) -> None:
    rows = config.batch_size // config.accumulate
    if rows < world.size:
        raise ConfigError(
            f"{world.size} processes have no row each of the {rows} of a pass (batch_size={config.batch_size}, "
            f"accumulate={config.accumulate}); use a larger batch_size, a smaller accumulate or fewer processes"
        )


def _open(
    task: Task,
    config: FitConfig,
    run: Path,
    resume: bool,
    state: TrainState,
    saver: Saver,
    world: World,
) -> dict[str, Any]:
    """Make or find the run, load its last checkpoint into `state`; returns the settings that differ now."""
    settings = {"task": task.describe(), "fit": asdict(config), "device": describe_device(world.device)}
    if world.size > 1:
        settings["device"]["processes"] = world.size
    settings = json.loads(json.dumps(settings))  # as they will be read again: lists for tuples

    def opened() -> dict[str, Any]:
        before = open_run(run, settings, resume)
        check_room(run, state.size())
        return before

    before = world.on_main(opened)
    if saver.resume(state) is None:
        return {}
    return {
        f"{part}.{name}": [before.get(part, {}).get(name), value]
        for part in ("task", "fit", "device")
        for name, value in settings[part].items()
        if before.get(part, {}).get(name) != value
    }


def _plan(config: FitConfig, step: int) -> Iterator[tuple[int, int]]:
    """(first, size) of every pass from `step` on, over all ranks."""
    steps = itertools.count(step) if config.steps is None else range(step, config.steps)
    for later in steps:
        yield from _passes(config, later)


def _passes(config: FitConfig, step: int) -> list[tuple[int, int]]:
    size = config.batch_size // config.accumulate
    return [(step * config.batch_size + part * size, size) for part in range(config.accumulate)]


def _places(config: FitConfig, world: World, step: int) -> list[tuple[int, int]]:
    """(first, size) of what this rank sees of each pass of a step."""
    shares = [(first, world.share(size)) for first, size in _passes(config, step)]
    return [(first + rows.start, len(rows)) for first, rows in shares]


def _batch(task: Task, world: World, first: int, size: int) -> Any:
    """This rank's rows of a pass."""
    return task.batch(first, size) if world.size == 1 else task.batch(first, size, world.share(size))


def _gradients(
    task: Task,
    config: FitConfig,
    world: World,
    sharing: Sharing,
    batches: Prefetch[Any],
    step: int,
    progress: float,
) -> tuple[list[Losses], float]:
    """Losses of this rank's rows, part by part, and their weight; the gradient of all ranks' mean is left behind."""
    size, device = config.batch_size // config.accumulate, world.device
    weight = world.size * len(world.share(size)) / size  # 1 where all ranks have as many rows
    parts = []
    for part in range(config.accumulate):
        own = (world.rank,) if world.size > 1 else ()
        seed_torch(device, config.seed, step, part, 1, *own)  # for dropout, which takes no generator
        batch = batches.next()
        dice = step_draws(world, device, size, config.seed, step, part)

        def act(batch: Any = batch, dice: torch.Generator = dice) -> tuple[Tensor, Losses]:
            with autocast(device, config.precision):
                losses = task.losses(batch, dice, progress)
            return losses.total, losses

        with sharing.backward_of(last=part == config.accumulate - 1):
            total, losses = sharing.call(act)
            (
                total / (config.accumulate / weight)
            ).backward()  # backward() adds gradients up; we want their mean
        parts.append(losses)
    sharing.finish()
    return parts, weight


def _agreed(world: World, stop: bool, elapsed: float) -> tuple[bool, float]:
    """Whether any rank was asked to stop, and rank 0's clock. Collective."""
    anyone, seconds = world.largest([float(stop), elapsed if world.main else 0.0])
    return anyone > 0, seconds


def _evaluated(
    evaluate: Callable[[int], Mapping[str, float]], task: Task, state: TrainState, sharing: Sharing
) -> dict[str, float]:
    task.modules.eval()
    with state.ema.swapped_in(), torch.no_grad():
        numbers = sharing.call(lambda: dict(evaluate(state.step)))
        sharing.leave()
    task.modules.train()
    return numbers


def _save_due(config: FitConfig, state: TrainState, saved_at: float) -> bool:
    waited = config.save_every_seconds is not None and state.elapsed - saved_at >= config.save_every_seconds
    return state.step % config.save_every == 0 or waited
