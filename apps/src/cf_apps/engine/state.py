"""Everything a training run carries from step to step, to and from named tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cf_apps.engine.config import FitConfig
from cf_apps.engine.ema import Ema
from cf_apps.engine.errors import CheckpointError
from cf_apps.engine.optim import adamw, trained_parameters
from cf_apps.engine.task import Task


def named_tensors(modules: nn.Module) -> dict[str, Tensor]:
    """Every parameter and saved buffer by dotted name; a tied one once, under its first name."""
    unique: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in modules.state_dict(keep_vars=True).items():
        unique.setdefault(id(tensor), (name, tensor))
    return {name: tensor.detach() for name, tensor in unique.values()}


@torch.no_grad()
def load_tensors(into: Mapping[str, Tensor], saved: Mapping[str, Tensor], origin: str) -> None:
    """Copy saved tensors into existing ones (their dtype and device stay), names and shapes being equal.

    Raises CheckpointError naming the tensors that differ and `origin`, before anything is copied.
    """
    shape = {name: tuple(t.shape) for name, t in into.items()}
    problems = {
        "lacks": [name for name in into if name not in saved],
        "has besides": [name for name in saved if name not in into],
        "has in another shape": [
            f"{name} {tuple(saved[name].shape)}, not {shape[name]}"
            for name in into
            if name in saved and tuple(saved[name].shape) != shape[name]
        ],
    }
    found = "; ".join(f"{what} {_some(names)}" for what, names in problems.items() if names)
    if found:
        raise CheckpointError(f"{origin} is of another model: it {found}; use the preset it was made with")
    for name, tensor in into.items():
        tensor.copy_(saved[name])


def _like(parameter: Tensor, saved: Tensor) -> Tensor:
    """A saved moment on the parameter's device and in its memory format (fused AdamW wants both alike)."""
    if saved.shape != parameter.shape:  # the count of steps
        return saved.to(parameter.device)
    return torch.empty_like(parameter, dtype=saved.dtype, requires_grad=False).copy_(saved)


def _some(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


@dataclass
class TrainState:
    """The weights, the optimizer, the average of the weights; steps and seconds behind us."""

    modules: nn.Module
    optimizer: torch.optim.AdamW
    ema: Ema
    step: int = 0
    elapsed: float = 0.0

    @classmethod
    def fresh(cls, task: Task, config: FitConfig) -> "TrainState":
        optimizer = adamw(task.modules, config, task.no_decay)
        return cls(task.modules, optimizer, Ema(task.modules, config.ema_decay, config.ema_ramp))

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint stores, file by file."""
        optimizer = {
            f"{name}/{key}": value
            for name, parameter in trained_parameters(self.modules).items()
            for key, value in self.optimizer.state[parameter].items()
        }
        return {"weights": named_tensors(self.modules), "ema": self.ema.state(), "optimizer": optimizer}

    def size(self) -> int:
        """Bytes of a checkpoint: weights, their average, and two moments each (before the first step too)."""
        average = sum(tensor.nbytes for tensor in self.ema.state().values())
        return sum(tensor.nbytes for tensor in named_tensors(self.modules).values()) + 3 * average

    def numbers(self) -> dict[str, Any]:
        return {"step": self.step, "elapsed": self.elapsed, "ema_updates": self.ema.updates}

    def load(self, parts: dict[str, dict[str, Tensor]], numbers: dict[str, Any], origin: str) -> None:
        """Go on from a checkpoint; raises CheckpointError when it is of another model."""
        load_tensors(named_tensors(self.modules), parts["weights"], f"{origin} (weights)")
        load_tensors(self.ema.state(), parts["ema"], f"{origin} (ema)")
        self.ema.updates = numbers["ema_updates"]
        parameters = trained_parameters(self.modules)
        for key, saved in parts["optimizer"].items():
            name, moment = key.rsplit("/", 1)
            self.optimizer.state[parameters[name]][moment] = _like(parameters[name], saved)
        self.step, self.elapsed = numbers["step"], numbers["elapsed"]
