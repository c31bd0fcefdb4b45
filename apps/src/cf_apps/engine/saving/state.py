"""Everything a training run carries from step to step, to and from named tensors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cf_apps.engine.config import FitConfig
from cf_apps.engine.ema import Ema
from cf_apps.engine.errors import CheckpointError
from cf_apps.engine.optim import adamw, trained_parameters
from cf_apps.engine.ranks.world import ALONE, World
from cf_apps.engine.saving.checkpoint import Checkpoint
from cf_apps.engine.task import Task

Shape = tuple[int, ...]


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
    check_shapes(_shapes(into), _shapes(saved), origin)
    for name, tensor in into.items():
        tensor.copy_(saved[name])


def check_shapes(wanted: Mapping[str, Shape], saved: Mapping[str, Shape], origin: str) -> None:
    """Raise CheckpointError naming the tensors that differ, and `origin`, where the saved ones are of another model."""
    problems = {
        "lacks": [name for name in wanted if name not in saved],
        "has besides": [name for name in saved if name not in wanted],
        "has in another shape": [
            f"{name} {saved[name]}, not {shape}"
            for name, shape in wanted.items()
            if name in saved and saved[name] != shape
        ],
    }
    found = "; ".join(f"{what} {_some(names)}" for what, names in problems.items() if names)
    if found:
        raise CheckpointError(f"{origin} is of another model: it {found}; use the preset it was made with")


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _some(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


@dataclass
class TrainState:
    """The weights, the optimizer, the average of the weights; steps and seconds behind us.

    extra: whatever else a run must not forget, as JSON (the counters of its guard).
    """

    modules: nn.Module
    optimizer: torch.optim.AdamW
    ema: Ema
    step: int = 0
    elapsed: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def fresh(cls, task: Task, config: FitConfig) -> "TrainState":
        optimizer = adamw(task.modules, config, task.no_decay)
        return cls(
            task.modules, optimizer, Ema(task.modules, config.ema_decay, config.ema_ramp, config.ema_device)
        )

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
        """What a checkpoint stores besides: all that is no function of the seed and the step."""
        return {
            "step": self.step,
            "elapsed": self.elapsed,
            "ema_updates": self.ema.updates,
            "extra": self.extra,
        }

    def restore(self, saved: Checkpoint, world: World = ALONE) -> None:
        """Go on from a checkpoint, whatever number of processes wrote it; each rank reads what it holds. Collective.

        Raises CheckpointError when it is of another model, before anything is changed.
        """
        into = {"weights": named_tensors(self.modules), "ema": self.ema.state()}
        for part, tensors in into.items():
            check_shapes(_shapes(tensors), saved.shapes(part), f"{saved.folder} ({part})")
        moments = self._moments(saved)
        saved.read(
            {**into, "optimizer": {f"{name}/{key}": value for (name, key), value in moments.items()}}, world
        )
        parameters = trained_parameters(self.modules)
        for (name, key), value in moments.items():
            self.optimizer.state[parameters[name]][key] = value
        self.step, self.elapsed = saved.state["step"], saved.state["elapsed"]
        self.ema.updates = saved.state["ema_updates"]
        self.extra = saved.state.get("extra", {})

    def _moments(self, saved: Checkpoint) -> dict[tuple[str, str], Tensor]:
        """Room for the optimizer's saved tensors, by parameter and their own name.

        Moments lie as the parameter does: on its device, sharded as it is, in its memory format (fused AdamW wants
        them alike). The count of steps is one number, on every rank.
        """
        parameters, room = trained_parameters(self.modules), {}
        for full_name, shape in saved.shapes("optimizer").items():
            name, key = full_name.rsplit("/", 1)
            parameter, dtype = parameters[name].detach(), saved.dtype("optimizer", full_name)
            alike = key != "step" and shape == tuple(parameter.shape)
            room[name, key] = (
                torch.empty_like(parameter, dtype=dtype)
                if alike
                else torch.empty(shape, dtype=dtype, device=parameter.device)
            )
        return room
