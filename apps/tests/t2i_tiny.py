"""The `tiny` recipe made so small that a step takes milliseconds: 16 px, two stages of one block, width 16."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from cf_apps.engine.commands.recipe import Recipe, overridden
from cf_apps.t2i.config import T2IConfig
from cf_apps.t2i.model import T2IModel, build
from cf_apps.t2i.presets import t2i_preset
from cf_apps.t2i.sample import Sampler
from cf_encoders import Vocabulary

CPU = torch.device("cpu")
CAPTIONS = ("a red circle", "a blue square", "two green circles", "a triangle above a red square", "a circle")
LATENT = [3, 16, 16]
SETTINGS: dict[str, Any] = {
    "image_size": 16,
    "codec.name": "pixels",
    "backbone.channels": 3,
    "text_ve.patch": 8,
    "language.width": 16,
    "language.max_tokens": 12,
    "text_ve.token_width": 16,
    "text_ve.max_tokens": 12,
    "text_ve.latent": LATENT,
    "text_ve.width": 16,
    "text_ve.heads": 2,
    "text_ve.mlp_hidden": 16,
    "backbone.size": [16, 16],
    "backbone.stages": [
        {"kind": "transformer", "d_model": 16, "n_blocks": 1, "patch": 8, "n_heads": 2},
        {"kind": "convnext", "d_model": 16, "n_blocks": 1, "patch": 4},
    ],
    "image_tower": {"image": LATENT, "latent": LATENT, "stages": [8, 8], "hidden": 16},
    "loss.encoder_weight": 0.3,
    "loss.scale_weights": None,
    "sample.steps": 2,
    "fit.precision": "fp32",
    "fit.batch_size": 4,
    "fit.warmup_steps": 0,
    "fit.log_every": 1,
    "fit.save_every": 2,
}
BASELINE: dict[str, Any] = {
    **{key: value for key, value in SETTINGS.items() if key.split(".")[0] not in ("text_ve", "backbone")},
    "backbone.context_width": 16,
    "backbone.dimr.channels": 3,
    "backbone.dimr.size": [16, 16],
    "backbone.dimr.stages": SETTINGS["backbone.stages"],
    "reader.token_width": 16,
    "reader.max_tokens": 12,
    "reader.width": 16,
    "reader.heads": 2,
    "reader.mlp_hidden": 16,
    "image_tower": None,
}
"""The same for `tiny-cross-attention`."""


def named(changes: dict[str, Any]) -> dict[str, Any]:
    """Dots written as two underscores: {"loss__null_rate": 0.5} -> {"loss.null_rate": 0.5}."""
    return {key.replace("__", "."): value for key, value in changes.items()}


def recipe(**changes: Any) -> Recipe[T2IConfig]:
    """`tiny` with SETTINGS and further changes: loss__null_rate=0.5."""
    return overridden(t2i_preset("tiny"), SETTINGS | named(changes))


def model(seed: int = 0, **changes: Any) -> T2IModel:
    """A random model that knows the words of CAPTIONS."""
    return build(recipe(**changes).model, Vocabulary.build(CAPTIONS), CPU, seed)


def baseline(seed: int = 0, **changes: Any) -> T2IModel:
    """The cross-attention baseline, likewise."""
    config = overridden(t2i_preset("tiny-cross-attention"), BASELINE | named(changes)).model
    return build(config, Vocabulary.build(CAPTIONS), CPU, seed)


def sampler(seed: int = 0, **changes: Any) -> Sampler:
    return Sampler(model(seed, **changes))


def flags(settings: dict[str, Any] = SETTINGS) -> list[str]:
    """The same settings for the command line."""
    return [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def write_folder(folder: Path, captions: Sequence[str] = CAPTIONS * 4) -> Path:
    """A data folder: one plain picture and one .txt for each caption, every picture of its own colour."""
    from PIL import Image

    folder.mkdir(parents=True)
    for i, caption in enumerate(captions):
        Image.new("RGB", (20, 18), (12 * i % 256, 255 - 9 * i % 256, 40)).save(folder / f"{i:02}.png")
        (folder / f"{i:02}.txt").write_text(caption)
    return folder
