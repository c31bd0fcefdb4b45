"""How large the tables are made: recipes, seeds, how much is measured."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from cf.spec import Ready, Training

Numbers = Mapping[str, float]
Columns = Mapping[str, Numbers]


@dataclass(frozen=True)
class Scale:
    """recipes: by the names that tables use. measures: by name, a finished training to columns of numbers.

    test, val: captions of each task that are drawn to report, and to choose the scale of guidance by.
    scored: pictures, for the tasks that look at pictures. data: in place of every recipe's own.
    """

    name: str
    about: str
    seeds: int
    recipes: Mapping[str, Callable[[], Ready]]
    measures: Mapping[str, Callable[["Trained"], Columns]]
    test: int = 60
    val: int = 16
    scored: int = 512
    data: str | None = None

    def ready(self, training: Training) -> Ready:
        ready = self.recipes[training.recipe]().changed(training.changes)
        if self.data is None:
            return ready
        return replace(ready, recipe=replace(ready.recipe, data=self.data))

    def name_of(self, training: Training) -> str:
        """For people: the recipe and what is changed in it."""
        changes = ", ".join(f"{key}={value}" for key, value in training.changes.items())
        return f"{training.recipe} ({changes})" if changes else training.recipe


@dataclass(frozen=True)
class Trained:
    """A finished training."""

    run: Path
    seed: int
    device: torch.device
    scale: Scale
