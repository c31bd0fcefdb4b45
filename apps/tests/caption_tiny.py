"""Both captioning recipes made so small that a step takes milliseconds: 16 px, latents of 3 x 8 x 8, widths of 16."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from cf_apps.caption.app import APP, TEXT_APP
from cf_apps.caption.config import CaptionConfig, TextConfig
from cf_apps.caption.model import CaptionModel, build
from cf_apps.caption.presets import PRESETS, TEXT_PRESETS
from cf_apps.caption.text import TextModel
from cf_apps.caption.text import build as build_text
from cf_apps.engine.commands.app import train
from cf_apps.engine.commands.recipe import Recipe, TrainRequest, overridden
from cf_encoders import Vocabulary
from torch import nn

CPU = torch.device("cpu")
CAPTIONS = (
    "a red circle",
    "a blue square",
    "two green circles",
    "a triangle, above a red square",
    "a circle",
)
LATENT = [3, 8, 8]
WIDTHS = {"latent": LATENT, "patch": 4, "width": 16, "heads": 2, "mlp_hidden": 16}
TEXT_SETTINGS: dict[str, Any] = {
    **{
        f"autoencoder.{half}.{key}": value for half in ("encoder", "decoder") for key, value in WIDTHS.items()
    },
    "autoencoder.encoder.token_width": 16,
    "autoencoder.encoder.max_tokens": 12,
    "autoencoder.decoder.max_tokens": 11,
    "autoencoder.decoder.vocabulary": 64,
    "autoencoder.encoder.conv_depth": 0,
    "autoencoder.decoder_kind": "parallel",  # untrained, word after word would write to the very end
    "tokens": "words",
    "replaced": 0.0,
    "mixed": 0.0,
}
FIT_SETTINGS: dict[str, Any] = {
    "fit.precision": "fp32",
    "fit.batch_size": 4,
    "fit.warmup_steps": 0,
    "fit.log_every": 1,
    "fit.save_every": 2,
}
SETTINGS: dict[str, Any] = {
    "image_size": 16,
    "codec": {"name": "patch-dct", "patch": 2, "keep": 3},
    "backbone.channels": 3,
    "backbone.size": [8, 8],
    "backbone.stages": [{"kind": "transformer", "d_model": 16, "n_blocks": 1, "patch": 4, "n_heads": 2}],
    "image_ve": None,
    "sigma": 0.5,
    "redo": 0.0,
    "loss.scale_weights": None,
    "loss.mean_weight": 0.0,
    "loss.decoder_weight": 0.0,
    "sample.steps": 2,
}
IMAGE_VE: dict[str, Any] = {
    "image": [3, 16, 16], "latent": LATENT, "widths": [8, 16], "groups": 4, "decoder": False,
}  # fmt: skip


def text_recipe(**changes: Any) -> Recipe[TextConfig]:
    """`tiny` with TEXT_SETTINGS and further changes, dots written as two underscores: autoencoder__kl_weight=0.5."""
    return overridden(TEXT_PRESETS["tiny"](), TEXT_SETTINGS | FIT_SETTINGS | _dotted(changes))


def recipe(**changes: Any) -> Recipe[CaptionConfig]:
    """The flow's `tiny` with SETTINGS and further changes."""
    return overridden(PRESETS["tiny"](), SETTINGS | FIT_SETTINGS | _dotted(changes))


def text_model(seed: int = 0, **changes: Any) -> TextModel:
    """A random text model that knows the words of CAPTIONS, frozen."""
    model = build_text(text_recipe(**changes).model, Vocabulary.build(CAPTIONS), CPU, seed)
    model.modules.eval().requires_grad_(False)
    return model


def model(seed: int = 0, text: TextModel | None = None, **changes: Any) -> CaptionModel:
    """A random captioning model around a text model's decoder; channels 0, 1, 2 have means 0, 1, 2 and stds 1, 2, 3."""
    text = text or text_model()
    config = recipe(**({"mean": [0.0, 1.0, 2.0], "std": [1.0, 2.0, 3.0]} | changes)).model
    return build(config, text.decoder, text.tokenizer, CPU, seed)


def train_text(out: Path, data: str | Path, steps: int = 2, resume: bool = False, **changes: Any) -> Path:
    overrides = TEXT_SETTINGS | FIT_SETTINGS | _dotted(changes)
    return train(
        TEXT_APP, TrainRequest("tiny", out, str(data), steps, resume=resume, overrides=overrides), CPU
    ).run


def train_flow(
    out: Path, data: str | Path, text: Path, steps: int = 2, resume: bool = False, **changes: Any
) -> Path:
    overrides = SETTINGS | FIT_SETTINGS | {"text": str(text)} | _dotted(changes)
    return train(
        APP, TrainRequest("tiny", out, str(data), steps, resume=resume, overrides=overrides), CPU
    ).run


def flags(settings: dict[str, Any]) -> list[str]:
    """The same settings for the command line."""
    return [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Straight(nn.Module):
    """The velocity that leads every x_t to the x_1 of its row in time; what a perfect flow would say."""

    def __init__(self, x_1):
        super().__init__()
        self.x_1 = x_1

    def forward(self, x_t, t, is_null=None):
        return (self.x_1 - x_t) / (1 - t[:, None, None, None])

    def scales(self, x_t, t, is_null=None):
        return (self(x_t, t),)


def write_folder(folder: Path, captions: Sequence[str] = CAPTIONS * 8) -> Path:
    """A data folder: one plain picture and a .txt of two lines for each caption, every picture of its own colour."""
    from PIL import Image

    folder.mkdir(parents=True)
    for i, caption in enumerate(captions):
        Image.new("RGB", (20, 18), (6 * i % 256, 255 - 5 * i % 256, 40)).save(folder / f"{i:03}.png")
        (folder / f"{i:03}.txt").write_text(f"{caption}\nhere is {caption}", encoding="utf-8")
    return folder


def _dotted(changes: dict[str, Any]) -> dict[str, Any]:
    return {key.replace("__", "."): value for key, value in changes.items()}
