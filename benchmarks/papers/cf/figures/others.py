"""The other tasks: pictures made larger, depth, and captions, each of held-out pictures."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from cf_apps.caption.app import APP as CAPTION
from cf_apps.caption.sample import Captioner
from cf_apps.caption.sources import open_captions
from cf_apps.depth.app import APP as DEPTH
from cf_apps.depth.evaluate import show as show_depth
from cf_apps.superres.app import APP as SUPERRES
from cf_apps.superres.degrade import enlarged, shrunk, to_bytes
from cf_apps.superres.evaluate import held_out
from cf_apps.superres.sample import Sampler
from jaxtyping import Int64, UInt8
from torch import Tensor

from cf.figures.stage import Drawn, Stage, grid, scoring
from cf.measures.numbers import LARGER as NUMBERS
from cf.scale import Trained
from cf.spec import Number, Row

LARGER, DEPTHS, CAPTIONED = 5, 6, 10  # pictures shown
SIDE = 192  # pixels of a picture that has a caption under it
BICUBIC = "bicubic"
PSNR = replace(next(number for number in NUMBERS if number.name == "psnr"), form="{:.1f} dB")


def larger(stage: Stage) -> Drawn:
    """Rows of held-out pictures: small, bicubic, each method that is there, and the true one."""
    found = {row: stage.trained(row.training) for row in stage.table("table6").rows}
    missing = [stage.without(row.name, row.training) for row, trained in found.items() if trained is None]
    there = {row: trained for row, trained in found.items() if trained is not None}
    if not there:
        return Drawn(None, missing=missing)
    small, truth = _pictures(next(iter(there.values())))
    factor = truth.shape[-1] // small.shape[-1]
    columns = {f"{small.shape[-1]} px": small.repeat_interleave(factor, 2).repeat_interleave(factor, 3)}
    for row, trained in there.items():
        columns[stage.titled(row.name, row, PSNR)] = (
            to_bytes(enlarged(small, factor)) if row.column == BICUBIC else _enlarged(small, trained)
        )
    columns["the true picture"] = truth
    picture = grid(
        torch.stack(list(columns.values()), 1).flatten(0, 1), len(columns), column_titles=list(columns)
    )
    alt = f"{len(truth)} held-out pictures, in columns: {'; '.join(columns)}"
    return Drawn(picture, alt, ["In brackets: PSNR, mean over the seeds measured so far."], missing)


def depth(stage: Stage) -> Drawn:
    """Rows of held-out pictures: the mean of x_0, the depth drawn from it, the truth, their difference."""
    rows = stage.table("table5").rows
    trained = stage.trained(rows[0].training)
    if trained is None:
        return Drawn(None, missing=[stage.without("depth", rows[0].training)])
    sheets = show_depth(DEPTH.open(trained.run, trained.device), scoring(trained), DEPTHS)
    alt = f"{DEPTHS} held-out pictures with their depth"
    return Drawn(next(iter(sheets.values())), alt, _listed(stage, rows, stage.table("table5").numbers[0]))


def captions(stage: Stage) -> Drawn:
    """Ten held-out pictures from all over the set, each with a drawn caption."""
    rows = stage.table("table4").rows
    trained = stage.trained(rows[0].training)
    if trained is None:
        return Drawn(None, missing=[stage.without("captions", rows[0].training)])
    captioner: Captioner = CAPTION.open(trained.run, trained.device)
    data = open_captions(trained.data, captioner.model.config.image_size).held_out("test")
    images = data.batch(_all_over(len(data), CAPTIONED)).images
    how = scoring(trained)
    written = captioner.captions(images, how.how, torch.Generator().manual_seed(how.seed))
    picture = grid(images, 5, side=SIDE, captions=written)
    alt = f"{len(written)} pictures, of which was written: {'; '.join(written)}"
    return Drawn(picture, alt, _listed(stage, rows, stage.table("table4").numbers[0]))


def _pictures(trained: Trained) -> tuple[UInt8[Tensor, "n 3 h w"], UInt8[Tensor, "n 3 H W"]]:
    """(small, true): held-out pictures from all over the set."""
    sampler: Sampler = SUPERRES.open(trained.run, trained.device)
    data = held_out(scoring(trained), sampler.model.config.image_size)
    truth = data.batch(_all_over(len(data), LARGER))
    return shrunk(truth, sampler.factor), truth


def _all_over(size: int, count: int) -> Int64[Tensor, "n"]:
    """Evenly spread places of a set."""
    return torch.linspace(0, size - 1, min(count, size)).long()


def _enlarged(small: UInt8[Tensor, "n 3 h w"], trained: Trained) -> UInt8[Tensor, "n 3 H W"]:
    sampler: Sampler = SUPERRES.open(trained.run, trained.device)
    how = scoring(trained)
    return sampler.enlarge_all(small, how.how, torch.Generator().manual_seed(how.seed))


def _listed(stage: Stage, rows: Sequence[Row], number: Number) -> list[str]:
    """A sentence with the number of every row, if there is any."""
    found = {row.name: stage.mean(row, number.name) for row in rows}
    said = [f"{name} {number.form.format(value)}" for name, value in found.items() if value is not None]
    direction = "higher" if number.higher_is_better else "lower"
    return [f"{number.title}, {direction} is better, mean over seeds: {'; '.join(said)}."] if said else []
