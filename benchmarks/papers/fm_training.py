"""How each of the five methods is trained: Adam, a schedule, clipping; what was reached can be taken up again."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fm_methods import Method
from torch import Tensor, nn

Watch = Callable[[int, Tensor], None]  # the step, and its loss where the device has it: reading waits


@dataclass(frozen=True)
class Plan:
    """decay: "cosine" to zero, or "linear" (the paper's polynomial one) after `warmup` steps of rising."""

    steps: int
    lr: float
    warmup: int = 0
    decay: str = "cosine"
    clip: float = 1.0

    def factor(self, step: int) -> float:
        """The share of `lr` to use at a step."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return 0.5 * (1 + math.cos(math.pi * done)) if self.decay == "cosine" else 1 - done


def train(
    method: Method,
    net: nn.Module,
    draw: Callable[[torch.Generator], Tensor],
    plan: Plan,
    generator: torch.Generator,
    watch: Watch = lambda step, loss: None,
    *,
    keep: Path | None = None,
    keep_every: int = 0,
) -> None:
    """x_0 is noise drawn from the generator, `draw` gives a batch of data. `watch` is told every step's loss.

    keep: a file that holds all of the state every `keep_every` steps; if it is there already, training goes on from it.
    """
    adam = torch.optim.Adam(net.parameters(), lr=plan.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, plan.factor)
    parts = {"net": net, "adam": adam, "schedule": schedule}
    begin = _taken_up(keep, parts, generator) if keep is not None and keep.is_file() else 0
    for step in range(begin, plan.steps):
        x_1 = draw(generator)
        x_0 = torch.randn(x_1.shape, generator=generator, device=generator.device).to(x_1.device)
        loss = method.loss(net, x_0, x_1, path=method.path, generator=generator).mean()
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), plan.clip)
        adam.step()
        schedule.step()
        watch(step, loss.detach())
        if keep is not None and keep_every and (step + 1) % keep_every == 0:
            _kept(keep, parts, generator, step + 1)


def _kept(file: Path, parts: dict[str, Any], generator: torch.Generator, step: int) -> None:
    """Written beside and moved into place, so that a good file is never half overwritten."""
    state = {name: part.state_dict() for name, part in parts.items()}
    beside = file.with_suffix(".part")
    torch.save({**state, "generator": generator.get_state(), "step": step}, beside)
    os.replace(beside, file)


def _taken_up(file: Path, parts: dict[str, Any], generator: torch.Generator) -> int:
    state = torch.load(file, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    generator.set_state(state["generator"])
    return state["step"]
