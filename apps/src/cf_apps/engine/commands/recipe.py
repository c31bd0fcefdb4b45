"""A recipe: a model's config, how to train it, and on what; and what the command line changes in it."""

import copy
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from cf_apps.engine.config import FitConfig
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.records import Record

C = TypeVar("C", bound=Record)


@dataclass(frozen=True)
class Recipe(Generic[C]):
    """A complete recipe. data: the source it is made for (None: the user's own)."""

    about: str
    model: C
    fit: FitConfig
    data: str | None = None


def named(presets: Mapping[str, Callable[[], Recipe[C]]], name: str) -> Recipe[C]:
    """The recipe of that name; ConfigError lists the names."""
    if name not in presets:
        raise ConfigError(f"unknown preset {name!r}; known: {', '.join(presets)}")
    return presets[name]()


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


def overridden(recipe: Recipe[C], overrides: Mapping[str, Any]) -> Recipe[C]:
    """The recipe with some keys replaced: 'loss.kl_weight', 'backbone.activation', 'fit.lr', ...

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
        return replace(recipe, model=type(recipe.model).from_dict(tree), fit=FitConfig(**fit_values))
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


def chosen_data(request: TrainRequest, recipe: Recipe[Any], what: str) -> str:
    """The data that was asked for, else the preset's own; ConfigError where there is neither."""
    name = request.data or recipe.data
    if name is None:
        raise ConfigError(f"preset {request.preset} has no data of its own; pass --data with {what}")
    return name


def fit_config(request: TrainRequest, recipe: Recipe[Any]) -> FitConfig:
    """The recipe's way of training with what was asked for in its place."""
    given = {
        name: value
        for name in ("batch_size", "lr", "steps", "max_seconds")
        if (value := getattr(request, name)) is not None
    }
    if "max_seconds" in given:
        given["steps"] = request.steps  # a time budget takes the place of the preset's steps
    return replace(recipe.fit, seed=request.seed, **given)
