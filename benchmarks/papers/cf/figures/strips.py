"""Strips: a row a model, the same captions and the same draw of the noise for all; and the scales of guidance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from cf_apps.engine.saving.checkpoint import checkpoints
from cf_apps.t2i.model import Velocity
from cf_apps.t2i.sample import Sampler
from cf_apps.t2i.weak import weak_velocity
from jaxtyping import Float
from torch import Tensor

from cf.figures.stage import Drawn, Stage, as_floats, budgets, grid, shown
from cf.measures.guidance import SWEPT, sampler_of
from cf.scale import Trained
from cf.spec import Row

NOISE = 1_000  # the seed of x_0
COLUMNS, LONGEST = 8, 115  # captions of a strip, and the characters that have room under a picture
ROWS, SHORT = 4, 80  # of a sweep, whose captions stand on the left
UNGUIDED = "unguided"  # the measure
GUIDED = 2.0  # the one scale at which the paper compares its indicator with autoguidance


@dataclass(frozen=True)
class Line:
    """A row of a strip. scale: of guidance; None is what this seed's search on val chose, and stands in the title.

    weak: guided by an earlier checkpoint, not by the indicator.
    """

    row: Row
    scale: float | None
    weak: bool = False


def strip(stage: Stage, table: str) -> Drawn:
    """A table of the paper: without guidance where it measures so, else at the scale that was chosen."""
    rows = stage.table(table).rows
    return stripped(stage, [Line(row, 1.0 if row.measure == UNGUIDED else None) for row in rows])


def guidance_strip(stage: Stage) -> Drawn:
    """Table 3c at one scale for both: what a search finds may be none. Their numbers are those of Fig. 8."""
    by_column = {row.column: row for row in stage.table("fig8").rows}
    none, weak, own = (
        by_column[f"{kind} {scale:g}"]
        for kind, scale in (("indicator", 1), ("autoguidance", GUIDED), ("indicator", GUIDED))
    )
    lines = [Line(replace(none, name="no guidance"), 1.0), Line(weak, GUIDED, weak=True), Line(own, GUIDED)]
    drawing = stripped(stage, lines)
    found = {row.name: stage.each(row, "scale") for row in stage.table("table3c").rows}
    said = [
        f"{name}: {', '.join(f'{scale:g}' for scale in scales)}" for name, scales in found.items() if scales
    ]
    chosen = (
        [f"Scales that the search on val chose, seed by seed: {'; '.join(said)}; 1 is none."] if said else []
    )
    return replace(drawing, notes=[*drawing.notes, *chosen])


def stripped(stage: Stage, lines: Sequence[Line]) -> Drawn:
    """The rows that are there, and last the true pictures with the captions under them."""
    found = [(line, stage.trained(line.row.training)) for line in lines]
    missing = [stage.without(line.row.name, line.row.training) for line, trained in found if trained is None]
    there = [(line, trained) for line, trained in found if trained is not None]
    if not there:
        return Drawn(None, missing=missing)
    _, first = there[0]
    true = shown(first, sampler_of(first), COLUMNS, LONGEST)
    made = [_row(stage, line, trained, true.texts) for line, trained in there]
    titles = [*(title for title, _ in made), "a true picture"]
    columns = len(true.texts)
    picture = grid(
        torch.cat([*(pictures for _, pictures in made), as_floats(true.images)]),
        columns,
        captions=[*[""] * (columns * len(made)), *true.texts],
        row_titles=titles,
    )
    alt = f"Pictures of {columns} captions, in rows: {'; '.join(titles)}"
    return Drawn(picture, alt, [stage.note], missing)


def sweep(stage: Stage, kind: str) -> Drawn:
    """Captions at every scale. kind: by the `indicator`, or by `autoguidance` away from the earliest checkpoint."""
    rows = {row.column: row for row in stage.table("fig8").rows}
    training = rows["indicator 1"].training
    trained = stage.trained(training)
    if trained is None:
        return Drawn(None, missing=[stage.without("every picture", training)])
    sampler = sampler_of(trained)
    texts = shown(trained, sampler, ROWS, SHORT).texts
    if kind == "autoguidance":
        sampler = replace(sampler, weak=_earliest(trained, sampler))
    columns = [drawn(sampler, texts, scale) for scale in SWEPT]
    titles = []
    for scale in SWEPT:  # autoguidance is measured from 1 on
        row, title = rows.get(f"{kind} {scale:g}"), f"scale {scale:g}"
        titles.append(title if row is None else stage.titled(title, row))
    picture = grid(torch.stack(columns, 1).flatten(0, 1), len(SWEPT), row_titles=texts, column_titles=titles)
    return Drawn(picture, f"Pictures of {len(texts)} captions, in columns: {'; '.join(titles)}", [stage.note])


def _row(
    stage: Stage, line: Line, trained: Trained, texts: Sequence[str]
) -> tuple[str, Float[Tensor, "n 3 s s"]]:
    """(title, pictures)"""
    scale, name = line.scale, line.row.name
    if scale is None:
        chosen = stage.chosen_scale(line.row)
        scale, said = (
            (1.0, "scale not searched yet: none") if chosen is None else (chosen, f"scale {chosen:g}")
        )
        name = f"{name}, {said}"
    sampler = sampler_of(trained)
    if line.weak:
        sampler = replace(sampler, weak=_earliest(trained, sampler))
    return stage.titled(name, line.row), drawn(sampler, texts, scale)


def drawn(sampler: Sampler, texts: Sequence[str], scale: float) -> Float[Tensor, "n 3 s s"]:
    """A picture of each caption, from the same noise whatever the model."""
    how = replace(sampler.model.config.sample, scale=scale)
    return sampler.draw(texts, how, torch.Generator().manual_seed(NOISE))


def _earliest(trained: Trained, sampler: Sampler) -> Velocity:
    """The velocity of the smallest budget's checkpoint, the weak model of the sweep."""
    there = checkpoints(trained.run)
    return weak_velocity(there[next(iter([*budgets(trained), *there]))], sampler)
