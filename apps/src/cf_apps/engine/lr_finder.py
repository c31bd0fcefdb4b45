"""The learning-rate finder: a short sweep from rates that do nothing to rates that break the training (Smith 2015)."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from cf_apps.engine.checks import require_count
from cf_apps.engine.config import FitConfig
from cf_apps.engine.errors import ConfigError, RunError
from cf_apps.engine.faults import explained_memory
from cf_apps.engine.optim import adamw, clip_gradients, set_learning_rate, trained_parameters
from cf_apps.engine.precision import autocast
from cf_apps.engine.saving.state import load_tensors, named_tensors
from cf_apps.engine.seeds import seed_torch, step_generator
from cf_apps.engine.task import Task
from cf_apps.engine.watching.curves import smoothed
from cf_apps.engine.watching.progress import Progress, Silence
from cf_apps.engine.watching.render import save_figure

AVERAGED = 5  # steps that a loss is smoothed over: batches differ more than neighbouring rates do
BROKEN = 4.0  # times the least smoothed loss: the sweep has seen enough
BELOW = 10.0  # the suggestion, below the rate at which the loss was least: there it is about to rise


@dataclass(frozen=True)
class Sweep:
    """What the losses did at each rate. rates: of the steps made; losses: total, before each step; smooth: averaged."""

    rates: Float[np.ndarray, "n"]
    losses: Float[np.ndarray, "n"]
    smooth: Float[np.ndarray, "n"]

    @property
    def least(self) -> float:
        """The rate at which the smoothed loss was least."""
        return float(self.rates[self.smooth.argmin()])

    @property
    def suggestion(self) -> float:
        """A tenth of the rate at which the smoothed loss was least."""
        return self.least / BELOW

    @property
    def shown(self) -> tuple[float, float]:
        """The losses that a plot spans: the fall from the start to the least, and as much again around it. Beyond the
        least the losses rise a hundredfold, and a plot of that shows no fall."""
        least = int(self.smooth.argmin())
        low, high = float(self.smooth[least]), float(self.smooth[: least + 1].max())
        return low - (high - low) / 2, high + (high - low) / 2

    def columns(self) -> Mapping[str, Mapping[str, float]]:
        """Loss and smoothed loss at each rate, as `print_table` takes them."""
        names = [f"{rate:.2e}" for rate in self.rates]
        return {
            "loss": dict(zip(names, self.losses.tolist(), strict=True)),
            "smoothed": dict(zip(names, self.smooth.tolist(), strict=True)),
        }


def find_lr(
    task: Task,
    config: FitConfig,
    lowest: float = 1e-7,
    highest: float = 1.0,
    steps: int = 100,
    progress: Progress | None = None,
) -> Sweep:
    """Make the first `steps` steps of a training, step k at the rate lowest · (highest / lowest)^(k / (steps - 1)).

    Batches, random numbers, optimizer and precision are those of `fit` in one process, without warm-up and schedule.
    The sweep ends early where the smoothed loss is four times its least, or not finite. Afterwards the task's weights,
    buffers and modes are what they were, bit for bit, and so are torch's own random numbers.

    Raises ConfigError for rates or steps that make no sweep, RunError where the loss never fell.
    """
    require_count("steps", steps, 10)
    if not 0 < lowest < highest < math.inf:
        raise ConfigError(
            f"a sweep needs 0 < lowest < highest, got {lowest} and {highest}; 1e-7 and 1 are usual"
        )
    losses: list[float] = []
    rates = lowest * (highest / lowest) ** (np.arange(steps) / (steps - 1))
    with _unchanged(task), explained_memory(config), progress or Silence() as line:
        parameters = list(trained_parameters(task.modules).values())
        optimizer = adamw(task.modules, config, task.no_decay)
        for step, rate in enumerate(rates.tolist()):
            set_learning_rate(optimizer, rate)
            loss = _loss_with_gradient(task, config, step)
            norm = clip_gradients(parameters, config.clip_norm)
            if not math.isfinite(loss) or not norm.isfinite():
                break
            losses.append(loss)
            if _is_broken(losses):
                break
            optimizer.step()
            optimizer.zero_grad()
            line.show((step + 1) / steps, f"lr {rate:.1e} · loss {loss:.4g}")
    return _checked(rates[: len(losses)], np.array(losses))


def draw_sweep(sweep: Sweep, path: Path) -> Path:
    """The loss over the rate as a PNG, with the suggestion; raises RunError when the disk refuses."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.plot(sweep.rates, sweep.losses, color="tab:blue", alpha=0.25, linewidth=0.8)
    axis.plot(sweep.rates, sweep.smooth, color="tab:blue")
    axis.axvline(sweep.suggestion, color="tab:orange", label=f"suggestion {sweep.suggestion:.1e}")
    axis.axvline(sweep.least, color="tab:gray", linestyle=":", label=f"least loss {sweep.least:.1e}")
    axis.set_xscale("log")
    axis.set_ylim(*sweep.shown)
    axis.set_xlabel("learning rate")
    axis.set_ylabel("total loss")
    axis.grid(alpha=0.3)
    axis.legend()
    return save_figure(figure, path)


def _loss_with_gradient(task: Task, config: FitConfig, step: int) -> float:
    """The mean total loss of a step's passes; its gradient is left in the parameters."""
    size, total = config.batch_size // config.accumulate, 0.0
    device = next(task.modules.parameters()).device
    for part in range(config.accumulate):
        seed_torch(device, config.seed, step, part, 1)
        batch = task.batch(step * config.batch_size + part * size, size)
        with autocast(device, config.precision):
            losses = task.losses(batch, step_generator(device, config.seed, step, part), 0.0)
        (losses.total / config.accumulate).backward()
        total += losses.total.item() / config.accumulate
    return total


@contextmanager
def _unchanged(task: Task) -> Iterator[None]:
    """Within the block the task may be trained; afterwards it is what it was."""
    device = next(task.modules.parameters()).device
    tensors = {name: tensor.to("cpu", copy=True) for name, tensor in named_tensors(task.modules).items()}
    modes = [(module, module.training) for module in task.modules.modules()]
    task.modules.train()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        load_tensors(named_tensors(task.modules), tensors, "the copy from before the sweep")
        task.modules.zero_grad()
        for module, training in modes:
            module.training = training


def _is_broken(losses: list[float]) -> bool:
    smooth = _smooth(np.array(losses))
    return bool(smooth[-1] > BROKEN * abs(smooth.min()) and smooth[-1] > smooth[0])


def _smooth(losses: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    return smoothed(losses, AVERAGED / len(losses))


def _checked(rates: Float[np.ndarray, "n"], losses: Float[np.ndarray, "n"]) -> Sweep:
    """The sweep; RunError where no rate in it made the loss fall."""
    if len(losses) == 0:
        raise RunError(
            "the loss or its gradient is not finite before the first step; look at the task's losses"
        )
    sweep = Sweep(rates, losses, _smooth(losses))
    if sweep.smooth.argmin() == 0:
        raise RunError(
            f"the loss never fell below its start at rates from {rates[0]:.1e} to {rates[-1]:.1e}; "
            "sweep lower rates, more steps or larger batches"
        )
    return sweep
