"""A toy task for the engine's tests: a small net learns a fixed function. Also run as a process of its own.

python engine_toy.py RUN STEPS       trains, going on from what is in RUN
"""

import sys
from pathlib import Path
from typing import Any

import torch
from cf_apps.engine import FitConfig, Losses, endless_order, fit, step_generator
from torch import Tensor, nn

N_SAMPLES = 37  # not a multiple of any batch size below


class Toy:
    """y = sin(3 x) · w from 37 fixed samples; with noise, dropout, an embedding, a tied, a frozen weight."""

    def __init__(self, width: int = 7, seed: int = 3) -> None:
        torch.manual_seed(seed)
        layers = [nn.Linear(5, width), nn.LayerNorm(width), nn.SiLU(), nn.Dropout(0.1), nn.Linear(width, 2)]
        self.frozen, self.tied = nn.Linear(2, 2), nn.Linear(width, 5, bias=False)
        self.frozen.requires_grad_(False)
        self.net, self.table, self.seed = nn.Sequential(*layers), nn.Embedding(4, 5), seed
        self.modules = nn.ModuleDict(
            {
                "net": self.net,
                "table": self.table,
                "position": self.tied,
                "same": self.tied,
                "frozen": self.frozen,
            }
        )
        self.calls = torch.zeros(())  # a buffer that training changes
        self.net.register_buffer("calls", self.calls)
        self.no_decay = ("position",)
        self.x = torch.randn(N_SAMPLES, 5, generator=step_generator("cpu", seed))
        self.y = torch.sin(3 * self.x) @ torch.randn(5, 2, generator=step_generator("cpu", seed, 1))

    def describe(self) -> dict[str, Any]:
        return {"name": "toy", "seed": self.seed}

    def batch(self, first: int, size: int) -> Tensor:
        return endless_order(N_SAMPLES, first, size, self.seed)

    def losses(self, batch: Tensor, generator: torch.Generator, progress: float) -> Losses:
        self.calls += 1
        noise = 0.01 * torch.randn(len(batch), 5, generator=generator)
        hidden = self.x[batch] + noise + self.table(batch % 4)
        prediction = self.net(hidden) + self.frozen(self.y[batch]) * 0
        error = (prediction.float() - self.y[batch]).square().mean()
        smooth = self.tied.weight.square().mean()
        empty = torch.tensor(float("nan") if batch[0] % 2 else 1.0)
        return Losses({"fit": (1.0, error), "size": (1e-3, smooth)}, {"fit_t0": error.detach(), "odd": empty})


def config(steps: int, **changes: Any) -> FitConfig:
    settings = {
        "batch_size": 8,
        "lr": 3e-3,
        "warmup_steps": 3,
        "schedule": "cosine",
        "save_every": 1,
        "log_every": 1,
    }
    return FitConfig(steps=steps, **(settings | changes))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    fit(Toy(), config(int(sys.argv[2])), folder, resume=folder.exists())
