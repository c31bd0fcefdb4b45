"""How large the tables are made: recipes, seeds, how much is measured; and what the command line puts in place."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from cf_apps.data.sources import SHAPES
from cf_apps.depth.model import NAME as DEPTH
from cf_apps.engine.commands.app import run_data
from cf_apps.engine.commands.recipe import Recipe, overridden
from cf_apps.engine.config import FitConfig
from cf_apps.engine.errors import ConfigError
from cf_apps.t2i.scoring.judges import JudgePaths

from cf.spec import Ready, Training

Numbers = Mapping[str, float]
Columns = Mapping[str, Numbers]
BUDGETS = 4  # even parts of a training of text to image, each with a checkpoint
SAVE_EVERY = 10_000  # steps between checkpoints of a long training, at most
NONE = 1.0  # the scale that guides nothing
GUIDANCE = (NONE, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)  # the scales that every search goes over
WHERE = ":"  # between the trainings that a setting is for and its key


@dataclass(frozen=True)
class Ladder:
    """The sizes of Fig. 3, smallest first. base: the one that the other tables train; its recipes have no suffix.

    compared: the recipes of Table 1, CrossFlow's and the baseline's.
    """

    rungs: tuple[str, ...]
    base: str
    compared: tuple[str, str] = ("t2i", "t2i-noise")

    def recipe(self, kind: str, rung: str) -> str:
        """kind: `t2i` for CrossFlow, `t2i-noise` for the baseline."""
        return kind if rung == self.base else f"{kind}-{rung}"


@dataclass(frozen=True)
class Scale:
    """recipes: by the names that tables use. measures: by name, a finished training to columns of numbers.

    languages: the rows of Table 3d, each with its recipe. best: the recipe of Table 2 and the figures of latents.
    test, val: captions of each task that are drawn to report, and to choose the scale of guidance by.
    scored, searched: the same of pairs that cannot be read back by rule, in all, at most. guidance: scales searched.

    data: captioned pictures in place of every recipe's own, but not of depth's; data_of: of trainings whose names begin
    so. settings: KEY: VALUE as `--set` has them, or WHERE:KEY for trainings whose names begin with WHERE; they go
    wherever they fit.
    held_out: pairs to measure text to image on that are no part of the data. inception, judges: weights to measure by.
    """

    name: str
    about: str
    seeds: int
    recipes: Mapping[str, Callable[[], Ready]]
    measures: Mapping[str, Callable[["Trained"], Columns]]
    ladder: Ladder
    languages: Mapping[str, str]
    test: int = 60
    val: int = 16
    scored: int = 512
    searched: int = 256
    guidance: tuple[float, ...] = GUIDANCE
    best: str = "t2i"
    data: str | None = None
    data_of: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    held_out: str | None = None
    inception: Path | None = None
    judges: JudgePaths = field(default_factory=JudgePaths)

    def ready(self, training: Training) -> Ready:
        """The training's recipe with what was given in its place; what the table changes comes last."""
        return self._given(training.recipe, self.recipe(training.recipe)).changed(training.changes)

    def recipe(self, name: str) -> Ready:
        """As the scale has it. Raises ConfigError for a name it has not."""
        if name not in self.recipes:
            raise ConfigError(f"scale {self.name} has no training {name!r}; it has {', '.join(self.recipes)}")
        return self.recipes[name]()

    def name_of(self, training: Training) -> str:
        """For people: the recipe and what is changed in it."""
        changes = ", ".join(f"{key}={value}" for key, value in training.changes.items())
        return f"{training.recipe} ({changes})" if changes else training.recipe

    @property
    def by_rule(self) -> bool:
        """Whether the pictures of text to image are read back by rule: those of captioned shapes can be."""
        return self.held_out is None and self.ready(Training("t2i")).recipe.data == SHAPES

    def budgets(self) -> tuple[int, ...]:
        """The steps of Fig. 3."""
        fit = self.ready(Training("t2i")).recipe.fit
        assert fit.steps is not None
        assert fit.keep_every is not None
        return budgets_of(fit.steps, fit.keep_every)

    def stored(self, measure: str, ready: Ready) -> str:
        """The measure and what it was judged by: numbers by other weights, or on other pairs, are others."""
        marks = []
        if ready.app.name == "t2i" and (self.held_out is not None or ready.recipe.data != SHAPES):
            marks = ["fid"] * (self.inception is not None) + ["clip"] * (self.judges.clip is not None)
            if self.held_out is not None:
                marks.append(f"on-{hashlib.sha256(self.held_out.encode()).hexdigest()[:6]}")
        elif ready.app.name == "superres" and self.inception is not None:
            marks = ["fid"]
        return "+".join([measure, *marks])

    def require(self, trainings: Iterable[Training]) -> None:
        """Raise ConfigError where a training has no data, or a setting or data given for some fits none of them."""
        wanted = list(trainings)
        names = sorted({training.recipe for training in wanted})
        for key in self.settings:
            where, _, own = key.rpartition(WHERE)
            for_these = [name for name in names if name.startswith(where)]
            if not any(_fits(ready.recipe, own) for name in for_these for ready in _chain(self.recipe(name))):
                raise ConfigError(
                    f"--set {key} fits no training of the tables asked for ({', '.join(names)}); {_known(self, names)}"
                )
        for where in self.data_of:
            if not any(name.startswith(where) for name in names):
                raise ConfigError(
                    f"--data-of {where}=... is for none of {', '.join(names)}; name one of them"
                )
        for training in wanted:
            ready = self.ready(training)
            if ready.recipe.data is None:
                general = "" if ready.app.name == DEPTH else "--data PATH or "
                raise ConfigError(
                    f"scale {self.name} trains {training.recipe} on data of yours: pass {general}--data-of "
                    f"{training.recipe}=PATH, with {ready.app.data}"
                )

    def _given(self, name: str, ready: Ready) -> Ready:
        general = None if ready.app.name == DEPTH else self.data
        data = _most_special(self.data_of, name) or general or ready.recipe.data
        recipe = replace(ready.recipe, data=data)
        for key, value in sorted(self.settings.items(), key=lambda item: len(item[0].rpartition(WHERE)[0])):
            where, _, own = key.rpartition(WHERE)
            if name.startswith(where) and _fits(recipe, own):
                recipe = overridden(recipe, {own: value})
                if own == "fit.steps" and recipe.fit.keep_every is not None:
                    recipe = replace(recipe, fit=quartered(recipe.fit))
        needs = None if ready.needs is None else self._given(name, ready.needs)
        return replace(ready, recipe=recipe, needs=needs)


@dataclass(frozen=True)
class Trained:
    """A finished training. scale.data: what it was trained on, where the scale says so."""

    run: Path
    seed: int
    device: torch.device
    scale: Scale

    @property
    def data(self) -> str:
        """What it was trained on, as it was called."""
        data = self.scale.data or run_data(self.run)
        if data is None:
            raise ConfigError(f"{self.run} does not say what it was trained on; pass --data")
        return data

    @property
    def by_rule(self) -> bool:
        """Whether its pictures are read back by rule."""
        return self.scale.held_out is None and self.data == SHAPES


def quartered(fit: FitConfig) -> FitConfig:
    """The same with a checkpoint kept at each quarter of its steps."""
    assert fit.steps is not None
    every = max(1, fit.steps // BUDGETS)
    parts = next(n for n in range(-(-every // SAVE_EVERY), every + 1) if every % n == 0)
    return replace(fit, save_every=every // parts, keep_every=every)


def budgets_of(steps: int, every: int) -> tuple[int, ...]:
    """The steps at which a training with a checkpoint `every` so many is measured, the last one included."""
    return (*(every * part for part in range(1, BUDGETS)), steps)


def _chain(ready: Ready) -> list[Ready]:
    """The training and those that come first."""
    return [ready] if ready.needs is None else [ready, *_chain(ready.needs)]


def _fits(recipe: Recipe[Any], key: str) -> bool:
    """Whether the recipe has the key."""
    branch: Any = {**recipe.model.to_dict(), "fit": vars(recipe.fit)}
    for name in key.split("."):
        if not isinstance(branch, dict) or name not in branch:
            return False
        branch = branch[name]
    return True


def _most_special(given: Mapping[str, str], name: str) -> str | None:
    """What was given for the longest beginning of the name."""
    fitting = [where for where in given if name.startswith(where)]
    return given[max(fitting, key=len)] if fitting else None


def _known(scale: Scale, names: Iterable[str]) -> str:
    """The first names of keys that there are."""
    recipes = [ready.recipe for name in names for ready in _chain(scale.recipe(name))]
    known = dict.fromkeys(key for recipe in recipes for key in [*recipe.model.to_dict(), "fit"])
    return f"keys begin with {', '.join(known)}"
