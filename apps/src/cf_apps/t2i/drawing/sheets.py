"""Sheets of pictures for people to look at."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cf_apps.data.captioned import CaptionedBatch, CaptionedImages
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.watching.render import image_grid, stacked
from cf_apps.t2i.drawing.arithmetic import draw_between
from cf_apps.t2i.evaluate import Scored, unguided
from cf_apps.t2i.sample import Sampler

if TYPE_CHECKING:
    import PIL.Image

SHOWN = (
    "a large yellow square at the top left on a gray background",
    "three small blue triangles at the top left, on the right and at the bottom on a white background",
    "a large green circle on the left and a large purple square on the right on a white background",
    "a small orange triangle at the top above a large blue circle at the bottom on a black background",
    "a small red square at the top left, a large green triangle at the top right and a small yellow circle at "
    "the bottom on a gray background",
    "two small purple circles at the top and at the bottom right",
    "a red circle left of a blue square on a white background",
    "a red circle",
)
BETWEEN = (
    "a large red circle on the left on a white background",
    "a large blue square on the right on a white background",
    "three small yellow triangles at the top left, on the right and at the bottom on a white background",
)
SHOWN_PAIRS = 8
GUIDED = 2.0  # the scale shown beside the unguided pictures where a run draws without guidance
WALK = 9
IN_A_ROW = 12  # pictures of a way, at most
VERDICTS = 40


def sample_sheet(
    sampler: Sampler,
    captions: Sequence[str],
    how: SampleConfig,
    seed: int,
    truth: UInt8[Tensor, "n 3 H W"] | None = None,
) -> "PIL.Image.Image":
    """Captions in rows of pictures: unguided, guided, with the indicator off, and the truth if given."""
    guided = how if how.scale != 1 else replace(how, scale=GUIDED)
    modes = {"unguided": unguided(how), f"guided, scale {guided.scale:g}": guided}
    modes["indicator off"] = replace(how, scale=0.0)
    columns = [sampler.draw(captions, mode, torch.Generator().manual_seed(seed)) for mode in modes.values()]
    titles = list(modes)
    if truth is not None:
        columns, titles = [*columns, truth.float() / 255], [*titles, "the true picture"]
    images = torch.stack(columns, 1).flatten(0, 1)
    under = [caption if place == 0 else "" for caption in captions for place in range(len(titles))]
    return image_grid(images, len(titles), captions=under, column_titles=titles)


def some_pairs(data: CaptionedImages) -> CaptionedBatch:
    """Eight pairs from all over a set."""
    return data.batch(torch.linspace(0, len(data) - 1, min(SHOWN_PAIRS, len(data))).long())


def verdict_sheet(scored: Scored, seed: int) -> "PIL.Image.Image":
    """Forty of the scored pictures, all tasks among them, each with its verdict."""
    order = torch.randperm(len(scored.captions), generator=torch.Generator().manual_seed(seed))
    chosen = order[:VERDICTS].sort().values
    words = [f"{'right' if scored.right[i] else 'WRONG'}: {scored.captions[i]}" for i in chosen.tolist()]
    return image_grid(scored.images[chosen], 10, captions=words)


def walk_sheet(sampler: Sampler, captions: Sequence[str], how: SampleConfig, seed: int) -> "PIL.Image.Image":
    """Nine pictures from each caption to the next."""
    return way_sheet(draw_between(sampler, captions, WALK, how, seed), captions, WALK)


def way_sheet(images: Float[Tensor, "n 3 H W"], captions: Sequence[str], count: int) -> "PIL.Image.Image":
    """A row for each way; a single long one goes on line after line, as in the paper's Fig. 10."""
    if len(captions) == 2 and count > IN_A_ROW:
        under = [captions[0], *[""] * (count - 2), captions[1]]
        return image_grid(images, captions=under)
    return image_grid(images, count, row_titles=[f"{a} to {b}" for a, b in pairwise(captions)])


def sum_sheet(
    rows: Sequence[Float[Tensor, "_ 3 H W"]], sums: Sequence[tuple[list[str], list[str]]]
) -> "PIL.Image.Image":
    """A row for each sum: its terms with their signs, and last what they come to."""
    pages = []
    for row, (plus, minus) in zip(rows, sums, strict=True):
        under = [*(f"+ {text}" for text in plus), *(f"- {text}" for text in minus), "= the sum"]
        pages.append(image_grid(row, len(row), captions=under))
    return stacked(pages)
