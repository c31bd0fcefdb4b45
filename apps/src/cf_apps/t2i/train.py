"""`crossflow t2i train`: a preset, some data, a run folder."""

import copy
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from cf_encoders import PatchDCTCodec, Vocabulary, kl_weight_warning
from cf_encoders.codec import PixelCodec

from cf_apps.data.sources import Source, open_source
from cf_apps.engine.config import FitConfig
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.export import export
from cf_apps.engine.fit import FitResult, fit
from cf_apps.engine.progress import Progress, progress_line
from cf_apps.t2i.config import T2IConfig
from cf_apps.t2i.model import SAMPLING_PARTS, T2IModel, build, fitted
from cf_apps.t2i.presets import Preset, t2i_preset
from cf_apps.t2i.task import T2ITask, encode_all

VOCABULARY_SAMPLE = 4_096  # captions that a vocabulary is read from
CODEC_SAMPLE = 2_048  # pictures that a codec's constants are measured on
FITS_IN_MEMORY = 20_000  # images whose latents are computed once rather than at every step


@dataclass(frozen=True)
class TrainRequest:
    """What the command line asks for; None keeps the preset's value."""

    preset: str
    out: Path
    data: str | None = None
    steps: int | None = None
    max_seconds: float | None = None
    batch_size: int | None = None
    lr: float | None = None
    seed: int = 0
    resume: bool = False
    overrides: Mapping[str, Any] | None = None


def train(request: TrainRequest, device: torch.device, label: str = "train") -> FitResult:
    """Train into request.out and export the averaged weights beside the checkpoints.

    Everything that can be known to be wrong is refused before the first step (UserError, DataError).
    """
    recipe = overridden(t2i_preset(request.preset), request.overrides or {})
    source = open_source(_data(request, recipe), recipe.model.image_size, request.seed)
    config = _fitted(recipe.model, source)
    model = build(config, _vocabulary(config, source), device, request.seed)
    _check_captions(model, source)
    _check_kl_weight(config)
    with progress_line(f"{label}: encoding") as line:
        latents = _latents(model, source, line)
    task = T2ITask(model, source.train, source.name, request.seed, latents)
    result = fit(
        task,
        _fit_config(request, recipe),
        request.out,
        resume=request.resume,
        progress=progress_line(label),
        notes=_skipped(source, request.out),
    )
    parts = [name for name in SAMPLING_PARTS if name in model.modules]
    export(request.out, parts, dtype=torch.float16)  # half the size; nobody can see the rounding
    return result


def overridden(recipe: Preset, overrides: Mapping[str, Any]) -> Preset:
    """The preset with some keys replaced: 'loss.kl_weight', 'backbone.activation', 'fit.lr', ...

    Raises ConfigError naming a key that does not exist and those that do.
    """
    tree: dict[str, Any] = {**recipe.model.to_dict(), "fit": asdict(recipe.fit)}
    for key, value in overrides.items():
        branch: Any = tree
        *path, leaf = key.split(".")
        for name in path:
            branch = _child(branch, name, key)
        _child(branch, leaf, key)
        branch[leaf] = copy.deepcopy(value)  # a later key may go into it
    fit_values = tree.pop("fit")
    try:
        fit_values["betas"] = tuple(fit_values["betas"])
        return replace(recipe, model=T2IConfig.from_dict(tree), fit=FitConfig(**fit_values))
    except ConfigError:
        raise
    except TypeError as error:
        raise ConfigError(f"a value of {', '.join(overrides)} has the wrong type: {error}") from error
    except ValueError as error:  # a part's own check
        raise ConfigError(f"{', '.join(overrides)}: {error}") from error


def _child(branch: Any, name: str, key: str) -> Any:
    """branch[name]; ConfigError lists the names there are."""
    if not isinstance(branch, dict) or name not in branch:
        known = ", ".join(branch) if isinstance(branch, dict) else "nothing below this"
        raise ConfigError(f"unknown key {key!r} (no {name!r}); known: {known}")
    return branch[name]


def parse_overrides(pairs: list[str]) -> dict[str, Any]:
    """['loss.kl_weight=1e-4', ...] -> {key: value}; values as JSON, else as words."""
    values = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not re.fullmatch(r"[\w.]+", key):
            raise ConfigError(f"--set takes KEY=VALUE, got {pair!r}; for example loss.kl_weight=1e-4")
        try:
            values[key] = json.loads(text)
        except ValueError:
            values[key] = text
    return values


def _data(request: TrainRequest, recipe: Preset) -> str:
    name = request.data or recipe.data
    if name is None:
        raise ConfigError(
            f"preset {request.preset} has no data of its own; pass --data FOLDER with images and captions"
        )
    return name


def _fit_config(request: TrainRequest, recipe: Preset) -> FitConfig:
    given = {
        name: value
        for name in ("batch_size", "lr", "steps", "max_seconds")
        if (value := getattr(request, name)) is not None
    }
    if "max_seconds" in given:
        given["steps"] = request.steps  # a time budget takes the place of the preset's steps
    return replace(recipe.fit, seed=request.seed, **given)


def _vocabulary(config: T2IConfig, source: Source) -> Vocabulary | None:
    if config.language.name != "vocab":
        return None
    count = min(VOCABULARY_SAMPLE, len(source.train))
    phrasings = torch.Generator().manual_seed(0)
    return Vocabulary.build(source.train.batch(torch.arange(count), phrasings).captions)


def _fitted(config: T2IConfig, source: Source) -> T2IConfig:
    """The config with what is measured on the training pictures before the first step."""
    first = torch.arange(min(CODEC_SAMPLE, len(source.train)))
    return replace(config, codec=fitted(config.codec, source.train.batch(first).images))


def _check_captions(model: T2IModel, source: Source) -> None:
    """Captions longer than the model reads would lose their end in silence: say how many, and how to read more."""
    captions = source.train.batch(torch.arange(min(VOCABULARY_SAMPLE, len(source.train)))).captions
    long = model.language.too_long(captions)
    if long:
        limit = model.language.max_tokens
        print(
            f"{len(long)} of {len(captions)} captions are longer than the {limit} tokens the model reads and are cut, "
            f"e.g. {captions[long[0]]!r}; to read more pass --set language.max_tokens=N --set text_ve.max_tokens=N",
            file=sys.stderr,
        )


def _check_kl_weight(config: T2IConfig) -> None:
    """Say so when the weight would let sigma die, or captions be forgotten, in a latent of this size."""
    loss = config.loss
    warning = kl_weight_warning(loss.kl_weight, config.latent, loss.kl_form) if loss.kl_weight else None
    if warning and config.text_ve.variation == "learned":
        print(f"loss.kl_weight: {warning}", file=sys.stderr)


def _latents(model: T2IModel, source: Source, line: Progress) -> torch.Tensor | None:
    if isinstance(model.codec, PixelCodec | PatchDCTCodec) or len(source.train) > FITS_IN_MEMORY:
        return None
    return encode_all(model, source.train, line)


def _skipped(source: Source, run: Path) -> list[dict[str, Any]]:
    """What the run's log says of samples that could not be used; nothing where all could."""
    if not len(source.skipped):
        return []
    print(f"{len(source.skipped)} samples were skipped; {run / 'log.jsonl'} lists them", file=sys.stderr)
    return [{"event": "skipped samples", "samples": [list(sample) for sample in source.skipped.samples]}]
