"""The `tiny` recipe made so small that a step takes milliseconds: 16 px, two stages of one block, width 16."""

import json
from typing import Any

import torch
from cf_apps.depth.model import DepthModel, build
from cf_apps.depth.presets import PRESETS
from cf_apps.depth.sample import Sampler
from cf_apps.engine.commands.recipe import Recipe, overridden

CPU = torch.device("cpu")
SETTINGS: dict[str, Any] = {
    "fourier": [3],
    "image_ve.image": [9, 16, 16],
    "image_ve.latent": [1, 16, 16],
    "image_ve.widths": [8, 16],
    "backbone.size": [16, 16],
    "backbone.stages": [
        {"kind": "transformer", "d_model": 16, "n_blocks": 1, "patch": 8, "n_heads": 2},
        {"kind": "convnext", "d_model": 16, "n_blocks": 1, "patch": 4},
    ],
    "loss.scale_weights": None,
    "loss.times": "uniform",
    "sample.steps": 2,
    "fit.precision": "fp32",
    "fit.batch_size": 4,
    "fit.warmup_steps": 0,
    "fit.log_every": 1,
    "fit.save_every": 2,
}


def recipe(**changes: Any) -> Recipe:
    """`tiny` with SETTINGS and further changes, dots written as two underscores: loss__null_rate=0.5."""
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    return overridden(PRESETS["tiny"](), SETTINGS | changes)


def model(seed: int = 0, **changes: Any) -> DepthModel:
    return build(recipe(**changes).model, CPU, seed)


def sampler(seed: int = 0, **changes: Any) -> Sampler:
    made = model(seed, **changes)
    made.modules.eval()
    return Sampler(made)


def flags(**changes: Any) -> list[str]:
    """The same settings for the command line."""
    settings = SETTINGS | {key.replace("__", "."): value for key, value in changes.items()}
    return [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
