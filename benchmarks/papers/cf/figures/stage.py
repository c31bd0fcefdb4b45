"""What figures are drawn from: the finished trainings of one seed, and the numbers that were measured of all seeds."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from cf_apps.engine.commands.app import Scoring
from cf_apps.engine.commands.common import sample_config
from cf_apps.engine.saving.checkpoint import checkpoints
from cf_apps.engine.saving.export import MODEL
from cf_apps.engine.watching.progress import Silence
from cf_apps.engine.watching.render import image_grid
from cf_apps.t2i.sample import Sampler
from cf_eval.composition import TASKS
from jaxtyping import Float, UInt8
from torch import Tensor

from cf.every import every
from cf.measures.held_out import HeldOut, held_out
from cf.measures.held_pairs import held_pairs
from cf.measures.judged import quality
from cf.scale import Scale, Trained
from cf.spec import Number, Row, Table, Training
from cf.store import Store

if TYPE_CHECKING:
    import PIL.Image

CELL = 128  # pixels of a picture on a figure, about


@dataclass(frozen=True)
class Drawn:
    """A figure as it came out. picture: None where nothing is there to draw. alt: what is in it, for who cannot see it.

    notes: sentences with what was measured. missing: one for each part that should be there and is not.
    """

    picture: "PIL.Image.Image | None"
    alt: str = ""
    notes: Sequence[str] = ()
    missing: Sequence[str] = ()


@dataclass(frozen=True)
class Stage:
    """One scale, the folders of its runs and numbers, and the seed whose trainings are shown."""

    scale: Scale
    store: Store
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def number(self) -> Number:
        """What stands in brackets: how well captions are followed, or what else the scale measures."""
        return quality(self.scale)[-1]

    @property
    def note(self) -> str:
        direction = "higher" if self.number.higher_is_better else "lower"
        return (
            f"In brackets: {self.number.title} on all test captions, {direction} is better, mean over the seeds "
            "measured so far."
        )

    def table(self, name: str) -> Table:
        """Of the paper, by the name of its script: its rows are the rows of the figures."""
        return every(self.scale)[name]

    def trained(self, training: Training) -> Trained | None:
        """The finished training, or None: one without exported weights is not finished."""
        if training.recipe not in self.scale.recipes:
            return None
        ready = self.scale.ready(training)
        run = self.store.run(ready.key(self.seed))
        if not (run / MODEL).exists():
            return None
        return Trained(run, self.seed, self.device, replace(self.scale, data=ready.recipe.data))

    def without(self, what: str, training: Training) -> str:
        """The sentence that says so."""
        if training.recipe not in self.scale.recipes:
            return f"{what}: scale {self.scale.name} has no training {training.recipe}"
        return f"{what}: no finished run of {self.scale.name_of(training)}, seed {self.seed}"

    def measured(self, training: Training, measure: str) -> dict[int, Mapping[str, Mapping[str, float]]]:
        """Seed -> column -> number of those seeds that have been measured."""
        if training.recipe not in self.scale.recipes:
            return {}
        ready = self.scale.ready(training)
        stored = self.scale.stored(measure, ready)
        records = {seed: self.store.read(ready.key(seed), stored, seed) for seed in range(self.scale.seeds)}
        return {seed: record["columns"] for seed, record in records.items() if record is not None}

    def each(self, row: Row, number: str) -> list[float]:
        """One number, of each seed that has it."""
        found = self.measured(row.training, row.measure).values()
        return [columns[row.column][number] for columns in found if number in columns.get(row.column, {})]

    def mean(self, row: Row, number: str) -> float | None:
        """Over the seeds that were measured; None before the first."""
        found = self.each(row, number)
        return statistics.mean(found) if found else None

    def titled(self, name: str, row: Row, number: Number | None = None) -> str:
        """A title with what was measured of that row, if it was."""
        number = self.number if number is None else number
        value = self.mean(row, number.name)
        return name if value is None else f"{name} ({number.form.format(value)})"

    def chosen_scale(self, row: Row) -> float | None:
        """Of guidance, by this seed's search on val; None before it was searched."""
        columns = self.measured(row.training, row.measure).get(self.seed, {})
        return columns.get(row.column, {}).get("scale")


def budgets(trained: Trained) -> list[int]:
    """The steps of Fig. 3 at which the run has a checkpoint."""
    there = checkpoints(trained.run)
    return [step for step in trained.scale.budgets() if step in there]


def scoring(trained: Trained) -> Scoring:
    """Its own data's test part, drawn as its recipe says."""
    return Scoring(trained.data, "test", sample_config(trained.run), trained.seed, Silence())


# ----------------------------------------------------------------------------------------- captions and pictures


@dataclass(frozen=True)
class Shown:
    """Test captions, each with a true picture."""

    texts: list[str]
    images: UInt8[Tensor, "n 3 s s"]


def shown(trained: Trained, sampler: Sampler, count: int, longest: int) -> Shown:
    """The first test captions with room under a picture, of captioned shapes from each task in turn.

    longest: characters; longer ones come where there are too few. Nobody looks at what a model draws before choosing.
    """
    if trained.by_rule:
        held = held_out("test", trained.scale.test, sampler.model.config.image_size)
        order = _in_turn(held, longest)
        texts, images = held.texts, held.images
    else:
        pairs = held_pairs(trained, sampler).test
        texts, images = pairs.captions, pairs.images
        order = _short_first(range(len(pairs)), texts, longest)
    places = order[:count]
    return Shown([texts[place] for place in places], images[places])


def val_captions(trained: Trained, sampler: Sampler, count: int, longest: int) -> list[str]:
    """Of pairs that no rule can read, the first short ones that scales are searched on."""
    texts = held_pairs(trained, sampler).val.captions
    return [texts[place] for place in _short_first(range(len(texts)), texts, longest)[:count]]


def _in_turn(held: HeldOut, longest: int) -> list[int]:
    by_task = {task: [] for task in TASKS}
    for place, caption in enumerate(held.captions):
        by_task[caption.expectation.task].append(place)
    rows = [_short_first(places, held.texts, longest) for places in by_task.values()]
    return [places[k] for k in range(max(map(len, rows))) for places in rows if k < len(places)]


def _short_first(places: Sequence[int], texts: Sequence[str], longest: int) -> list[int]:
    return sorted(places, key=lambda place: len(texts[place]) > longest)


def grid(
    images: UInt8[Tensor, "n 3 s s"] | Float[Tensor, "n 3 s s"],
    columns: int,
    *,
    side: int = CELL,
    captions: Sequence[str] | None = None,
    column_titles: Sequence[str] | None = None,
    row_titles: Sequence[str] | None = None,
) -> "PIL.Image.Image":
    """`image_grid` of pictures about `side` pixels wide: small ones with their pixels as squares, large ones shrunk."""
    if images.shape[-1] > side:
        images = F.interpolate(as_floats(images), (side, side), mode="area")
    return image_grid(
        images,
        columns,
        captions=captions,
        column_titles=column_titles,
        row_titles=row_titles,
        upscale=max(1, round(side / images.shape[-1])),
    )


def as_floats(images: UInt8[Tensor, "n 3 s s"] | Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n 3 s s"]:
    """In [0, 1]."""
    return images if images.is_floating_point() else images.float() / 255
