"""The `tiny` recipe made so small that a step takes milliseconds: 4 px to 16, two stages of one block, width 16."""

import json
from pathlib import Path
from typing import Any

import torch
from cf_apps.engine.commands.recipe import Recipe, named, overridden
from cf_apps.engine.flow import SampleConfig
from cf_apps.superres.config import SuperResConfig
from cf_apps.superres.model import SuperResModel, build
from cf_apps.superres.presets import PRESETS
from cf_apps.superres.sample import Sampler
from torch import Tensor

CPU = torch.device("cpu")
SETTINGS: dict[str, Any] = {
    "image_size": 16,
    "codec.name": "pixels",
    "backbone.channels": 3,
    "backbone.size": [16, 16],
    "backbone.stages": [
        {"kind": "transformer", "d_model": 16, "n_blocks": 1, "patch": 8, "n_heads": 2},
        {"kind": "convnext", "d_model": 16, "n_blocks": 1, "patch": 4},
    ],
    "sample.steps": 2,
    "fit.precision": "fp32",
    "fit.batch_size": 4,
    "fit.warmup_steps": 0,
    "fit.log_every": 1,
    "fit.save_every": 2,
}
ONCE = SampleConfig(scale=1.0, steps=1)


def recipe(**changes: Any) -> Recipe[SuperResConfig]:
    """`tiny` with SETTINGS and further changes, dots written as two underscores: loss__times='early'."""
    given = {key.replace("__", "."): value for key, value in changes.items()}
    return overridden(named(PRESETS, "tiny"), SETTINGS | given)


def model(seed: int = 0, **changes: Any) -> SuperResModel:
    return build(recipe(**changes).model, CPU, seed)


def sampler(seed: int = 0, **changes: Any) -> Sampler:
    it = Sampler(model(seed, **changes))
    it.model.modules.eval()
    return it


def still(**changes: Any) -> Sampler:
    """A model whose velocity is 0: what goes in comes out."""
    it = sampler(source_noise=0.0, **changes)
    for head in it.model.backbone.heads:
        head.zero()
    return it


def flags(settings: dict[str, Any] = SETTINGS) -> list[str]:
    """The same settings for the command line."""
    return [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Bytes."""
    return torch.randint(256, shape, dtype=torch.uint8, generator=dice(seed))


def write_folder(folder: Path, count: int = 40, size: tuple[int, int] = (20, 18)) -> Path:
    """Pictures of soft random blobs, each of its own."""
    from PIL import Image

    folder.mkdir(parents=True)
    for i in range(count):
        small = noise(3, 5, 5, seed=i).permute(1, 2, 0).numpy()
        Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(folder / f"{i:02}.png")
    return folder
