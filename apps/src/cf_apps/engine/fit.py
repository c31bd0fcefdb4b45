"""The training loop. It knows no task: a task hands it modules, batches and losses by name."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cf_apps.engine.checkpoint import check_room, checkpoints, load_checkpoint, save_checkpoint
from cf_apps.engine.config import FitConfig
from cf_apps.engine.device import describe_device
from cf_apps.engine.ema import Ema
from cf_apps.engine.faults import check_finite, explained_memory, stop_request
from cf_apps.engine.log import Log, Window
from cf_apps.engine.optim import clip_gradients, set_learning_rate, trained_parameters
from cf_apps.engine.precision import autocast
from cf_apps.engine.progress import Progress, Silence
from cf_apps.engine.run import open_run
from cf_apps.engine.seeds import seed_torch, step_generator
from cf_apps.engine.state import TrainState
from cf_apps.engine.task import Losses, Task


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
) -> FitResult:
    """Train `task` into the folder `run`; with `resume`, go on from its last checkpoint as if never stopped.

    evaluate: called with the step every `config.evaluate_every` steps, the averaged weights in the modules;
        its numbers go into the log.
    progress: shows how it goes, `progress_line("train")` for instance; nothing is shown without.
    notes: records with an 'event' that go into the log before the first step (samples that were skipped, say).
    clock: seconds; what `max_seconds` is measured with.

    Raises UserError for whatever the user can repair: a folder that is not a run, a checkpoint of another
    model, a full disk, too little memory, a loss that is not finite.
    """
    state = TrainState.fresh(task, config)
    changed = _open(task, config, run, resume, state)
    parameters = list(trained_parameters(task.modules).values())
    gpus = [p.device for p in parameters[:1] if p.device.type == "cuda"]
    start = clock() - state.elapsed
    with (
        Log(run, state.step) as log,
        progress or Silence() as line,
        stop_request() as stop,
        torch.random.fork_rng(gpus),  # the loop seeds torch's own generators; the caller's stay as they were
    ):
        for note in notes:
            log.write({"step": state.step, **note})
        if changed:
            log.write({"step": state.step, "event": "resumed with other settings", "changed": changed})
        window, saved_at = Window(state.step, state.elapsed, config.batch_size), state.elapsed
        task.modules.train()
        while (done := config.progress(state.step, state.elapsed)) < 1 and not stop:
            lr = config.learning_rate(state.step, done)
            set_learning_rate(state.optimizer, lr)
            with explained_memory(config):
                losses = _gradients(task, config, state.step, done)
                norm = clip_gradients(parameters, config.clip_norm)
                check_finite(losses, norm, state.step)
                state.optimizer.step()
                state.optimizer.zero_grad()
                state.ema.update()
            state.step, state.elapsed = state.step + 1, clock() - start
            window.add(losses, norm)

            if state.step % config.log_every == 0:
                log.write(window.record(state.step, state.elapsed, lr))
            line.show(config.progress(state.step, state.elapsed), window.text)
            if evaluate is not None and config.evaluate_every and state.step % config.evaluate_every == 0:
                log.write({"step": state.step, "evaluation": _evaluated(evaluate, task, state)})
            if _save_due(config, state, saved_at):
                save_checkpoint(run, state.step, state.parts(), state.numbers(), config.keep_last)
                saved_at = state.elapsed
        save_checkpoint(run, state.step, state.parts(), state.numbers(), config.keep_last)
    return FitResult(run, state.step, state.elapsed, finished=done >= 1, ema=state.ema)


def _open(task: Task, config: FitConfig, run: Path, resume: bool, state: TrainState) -> dict[str, Any]:
    """Make or find the run, load its last checkpoint into `state`; returns the settings that differ now."""
    device = next(task.modules.parameters()).device
    settings = {"task": task.describe(), "fit": asdict(config), "device": describe_device(device)}
    settings = json.loads(json.dumps(settings))  # as they will be read again: lists for tuples
    before = open_run(run, settings, resume)
    check_room(run, state.size())
    if not (found := list(checkpoints(run).values())):
        return {}
    state.load(*load_checkpoint(found[-1]), origin=str(found[-1]))
    return {
        f"{part}.{name}": [before.get(part, {}).get(name), value]
        for part in ("task", "fit", "device")
        for name, value in settings[part].items()
        if before.get(part, {}).get(name) != value
    }


def _gradients(task: Task, config: FitConfig, step: int, progress: float) -> list[Losses]:
    """Losses of the step's batch, part by part, with the gradient of their mean left in the parameters."""
    size = config.batch_size // config.accumulate
    device = next(task.modules.parameters()).device
    parts = []
    for part in range(config.accumulate):
        seed_torch(device, config.seed, step, part, 1)  # for dropout, which takes no generator
        batch = task.batch(step * config.batch_size + part * size, size)
        with autocast(device, config.precision):
            losses = task.losses(batch, step_generator(device, config.seed, step, part), progress)
        (losses.total / config.accumulate).backward()  # backward() adds gradients up; we want their mean
        parts.append(losses)
    return parts


def _evaluated(
    evaluate: Callable[[int], Mapping[str, float]], task: Task, state: TrainState
) -> dict[str, float]:
    task.modules.eval()
    with state.ema.swapped_in(), torch.no_grad():
        numbers = dict(evaluate(state.step))
    task.modules.train()
    return numbers


def _save_due(config: FitConfig, state: TrainState, saved_at: float) -> bool:
    waited = config.save_every_seconds is not None and state.elapsed - saved_at >= config.save_every_seconds
    return state.step % config.save_every == 0 or waited
