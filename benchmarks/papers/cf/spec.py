"""What a table is: rows, each a training and what is measured of it, and claims about them."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cf_apps.engine.commands.app import App
from cf_apps.engine.commands.recipe import Recipe, overridden

REPRODUCED, NOT_REPRODUCED, UNDECIDED = "reproduced", "not reproduced", "not decidable at this scale"


@dataclass(frozen=True)
class Training:
    """One training of a scale, by the name of its recipe there and what is changed in it (KEY: VALUE, as `--set`)."""

    recipe: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.recipe, json.dumps(dict(self.changes), sort_keys=True)))


@dataclass(frozen=True)
class Ready:
    """A training with its recipe looked up: what is trained, by which task. needs: a training that comes first."""

    app: App[Any, Any]
    recipe: Recipe[Any]
    needs: "Ready | None" = None

    def changed(self, changes: Mapping[str, Any]) -> "Ready":
        return replace(self, recipe=overridden(self.recipe, changes))

    def key(self, seed: int) -> str:
        """Of everything that decides what the training gives: another recipe has another key."""
        parts = {
            "task": self.app.name,
            "model": self.recipe.model.to_dict(),
            "fit": {name: value for name, value in asdict(self.recipe.fit).items() if name != "seed"},
            "data": self.recipe.data,
            "seed": seed,
            "needs": None if self.needs is None else self.needs.key(seed),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Row:
    """A row of ours. measure: the name of what is measured, see `measures.MEASURES`; column: of its columns which.

    Rows with the same training share it, rows with the same measure as well share the numbers.
    """

    name: str
    training: Training
    measure: str
    column: str = "ours"


Results = Mapping[str, Sequence[Mapping[str, float]]]
"""Name of the row -> seed by seed -> name of the number -> number."""


@dataclass(frozen=True)
class Claim:
    """What the paper says. judge: (verdict, evidence) of the results; only called when all rows are there."""

    words: str
    judge: Callable[[Results], tuple[str, str]]


@dataclass(frozen=True)
class Number:
    """A column of ours. printed: of the paper's columns the one that it stands for.

    higher_is_better: None where neither is.
    """

    name: str
    title: str
    printed: str | None = None
    form: str = "{:.3f}"
    higher_is_better: bool | None = True


@dataclass(frozen=True)
class Curves:
    """A figure drawn as lines.

    lines: by name the rows along x. x: their places, or the name of the number that says so. y: name of the number.
    """

    lines: Mapping[str, Sequence[str]]
    x: Sequence[float] | str
    x_title: str
    y: str
    logarithmic: bool = False


@dataclass(frozen=True)
class Table:
    """One table or figure of the paper.

    key: of tables.json; a figure has none, and a title instead.
    printed: the paper's row that each of ours stands for, where their names differ. says: where our setting differs.
    paper_needs: what nobody has here, with the command that makes the table of whoever has it.
    """

    key: str
    rows: Sequence[Row]
    numbers: Sequence[Number]
    claims: Sequence[Claim]
    title: str | None = None
    says: str = ""
    printed: Mapping[str, str] = field(default_factory=dict)
    curves: Sequence[Curves] = ()
    paper_needs: str = "COCO and Inception weights"
