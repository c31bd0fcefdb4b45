"""Walks between captions and sums of them, with pictures where the paper's Fig. 4 and 5 have theirs."""

from dataclasses import replace

import torch
from cf_apps.engine.flow import SampleConfig
from cf_apps.t2i.drawing.arithmetic import draw_between, draw_sum
from cf_apps.t2i.sample import Sampler

from cf.figures.stage import Drawn, Stage, grid, val_captions
from cf.figures.strips import LONGEST, NOISE
from cf.measures.guidance import sampler_of
from cf.scale import Trained

FRAMES = 9
MEASURED = {"sum": "of the sums", "first": "of their first terms", "said": "of captions that say it outright"}
WALKS = (
    (
        "a large red circle on the left on a white background",
        "a large red circle on the right on a white background",
    ),
    (
        "a large yellow square in the middle on a black background",
        "a large blue circle in the middle on a black background",
    ),
    (
        "a large green triangle at the top on a white background",
        "two large purple circles at the bottom left and at the bottom right on a gray background",
    ),
)
SUMS = (
    # plus                plus                 minus                  what the sum is to mean
    (
        "a large red circle on the left on a white background",
        "a large blue square on the left on a white background",
        "a large red square on the left on a white background",
        "a large blue circle on the left on a white background",
    ),
    (
        "a large green triangle on the left on a gray background",
        "a large orange circle on the right on a gray background",
        "a large orange circle on the left on a gray background",
        "a large green triangle on the right on a gray background",
    ),
    (
        "a large yellow square on the right on a black background",
        "a large purple circle on the right on a white background",
        "a large purple circle on the right on a black background",
        "a large yellow square on the right on a white background",
    ),
)
SUMS_OF_THINGS = (
    # the same of captions that name one thing
    ("a red heart", "a blue book", "a red book", "a blue heart"),
    ("a green apple", "a yellow car", "a green car", "a yellow apple"),
    ("a white bird", "a black umbrella", "a white umbrella", "a black bird"),
)


def walks(stage: Stage) -> Drawn:
    """Three ways of nine pictures, the captions under their ends."""
    (row,) = stage.table("fig4").rows
    trained = stage.trained(row.training)
    if trained is None:
        return Drawn(None, missing=[stage.without("the walks", row.training)])
    sampler, how = _unguided(trained)
    ways = WALKS if trained.by_rule else _between_val_captions(trained, sampler)
    rows = [draw_between(sampler, ends, FRAMES, how, NOISE) for ends in ways]
    under = [text for a, b in ways for text in (a, *[""] * (FRAMES - 2), b)]
    alt = "Nine pictures each " + "; ".join(f"from {a} to {b}" for a, b in ways)
    step = stage.mean(row, "largest_step")
    notes = []
    if step is not None:
        notes.append(
            f"Over pairs of val captions the largest of eight steps is {step:.2f} of the way; even steps are 0.125."
        )
    return Drawn(grid(torch.cat(rows), FRAMES, captions=under), alt, notes)


def sums(stage: Stage) -> Drawn:
    """Three sums: the terms with their signs, then the sum, with what it is to mean."""
    rows = {row.column: row for row in stage.table("fig5").rows}
    training = rows["sum"].training
    trained = stage.trained(training)
    if trained is None:
        return Drawn(None, missing=[stage.without("the sums", training)])
    sampler, how = _unguided(trained)
    shown = SUMS if trained.by_rule else SUMS_OF_THINGS
    drawn, under = [], []
    for first, second, less, meant in shown:
        drawn.append(draw_sum(sampler, [first, second], [less], how, NOISE))
        under += [first, f"+ {second}", f"- {less}", f"= the sum, to be {meant}"]
    alt = "Sums of captions: " + "; ".join(f"{a} + {b} - {c}" for a, b, c, _ in shown)
    found = {words: stage.mean(rows[name], "right") for name, words in MEASURED.items()}
    said = [f"{value:.2f} {words}" for words, value in found.items() if value is not None]
    notes = (
        [f"Of sums like the first row's, the picture shows what is meant: {', '.join(said)}."] if said else []
    )
    return Drawn(grid(torch.cat(drawn), 4, captions=under), alt, notes)


def _between_val_captions(trained: Trained, sampler: Sampler) -> list[tuple[str, str]]:
    texts = val_captions(trained, sampler, 2 * len(WALKS), LONGEST)
    return list(zip(texts[::2], texts[1::2], strict=False))


def _unguided(trained: Trained) -> tuple[Sampler, SampleConfig]:
    """The sampler and how it draws here."""
    sampler = sampler_of(trained)
    return sampler, replace(sampler.model.config.sample, scale=1.0)
