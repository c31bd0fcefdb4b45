"""Pictures for people: the small one, bicubic and ours side by side, whole and as zoomed crops."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from cf_apps.data.picture_sets import PictureSet
from cf_apps.data.pictures import resized
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.watching.render import image_grid
from cf_apps.superres.degrade import enlarged, shrunk, to_bytes
from cf_apps.superres.sample import Sampler

if TYPE_CHECKING:
    import PIL.Image

SHOWN = 8  # held-out pictures on a sheet
CROPS = 3
CROP_SIDE = 48  # pixels of the enlarged picture
WHOLE_SIDE = 384  # the longer side of the whole pictures above the crops


def held_out_sheet(
    sampler: Sampler, data: PictureSet, how: SampleConfig, seed: int, shown: int = SHOWN
) -> "PIL.Image.Image":
    """Rows of held-out pictures: the small one with its pixels as squares, bicubic, ours, the true one."""
    truth = data.batch(torch.linspace(0, len(data) - 1, min(shown, len(data))).long())
    factor = sampler.factor
    small = shrunk(truth, factor)
    ours = sampler.enlarge_all(small, how, torch.Generator().manual_seed(seed))
    columns = {
        f"{sampler.small_size} px": _squares(small, factor),
        "bicubic": to_bytes(enlarged(small, factor)),
        f"ours, {truth.shape[-1]} px": ours,
        "the true picture": truth,
    }
    images = torch.stack(list(columns.values()), 1).flatten(0, 1)
    return image_grid(images, len(columns), column_titles=list(columns))


def comparison(small: UInt8[Tensor, "3 h w"], ours: UInt8[Tensor, "3 H W"], factor: int) -> "PIL.Image.Image":
    """One picture: whole, and its most detailed places zoomed in; columns as on a sheet, without a truth."""
    bicubic = to_bytes(enlarged(small[None], factor))[0]
    columns = {"the picture": _squares(small[None], factor)[0], "bicubic": bicubic, "ours": ours}
    _, height, width = ours.shape
    side = min(CROP_SIDE, height, width)
    rows = [[_whole(picture) for picture in columns.values()]]
    for top, left in detailed_places(bicubic, side, CROPS):
        rows.append([it[:, top : top + side, left : left + side] for it in columns.values()])
    cell = max(rows[0][0].shape[1:])
    images = [_in_square(picture, cell) for row in rows for picture in row]
    titles = ["whole", *(f"crop {k + 1}" for k in range(len(rows) - 1))]
    return image_grid(
        torch.stack(images), len(columns), column_titles=list(columns), row_titles=titles, upscale=1
    )


def detailed_places(picture: UInt8[Tensor, "3 H W"], side: int, count: int) -> list[tuple[int, int]]:
    """(top, left) of up to `count` squares that do not overlap, where neighbouring pixels differ most."""
    grey = picture.float().mean(0)
    detail = F.pad(grey.diff(dim=0).abs(), (0, 0, 0, 1)) + F.pad(grey.diff(dim=1).abs(), (0, 1))
    sums = _sums_of_squares_at(detail, side)
    places = []
    for _ in range(count):
        best = int(sums.argmax())
        top, left = divmod(best, sums.shape[1])
        if sums[top, left] < 0:
            break
        places.append((top, left))
        sums[max(0, top - side + 1) : top + side, max(0, left - side + 1) : left + side] = -1
    return places


def _sums_of_squares_at(detail: Float[Tensor, "H W"], side: int) -> Float[Tensor, "m n"]:
    """The sum over the side x side pixels that begin at each place, from running sums."""
    total = F.pad(detail.double().cumsum(0).cumsum(1), (1, 0, 1, 0))
    return total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]


def _squares(small: UInt8[Tensor, "b 3 h w"], factor: int) -> UInt8[Tensor, "b 3 H W"]:
    return small.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def _whole(picture: UInt8[Tensor, "3 h w"]) -> UInt8[Tensor, "3 m n"]:
    """The picture so that it fits the sheet: shrunk if it is larger, never enlarged."""
    _, height, width = picture.shape
    scale = min(1.0, WHOLE_SIDE / max(height, width))
    return resized(picture, max(1, round(scale * height)), max(1, round(scale * width)))


def _in_square(picture: UInt8[Tensor, "3 h w"], cell: int) -> UInt8[Tensor, "3 {cell} {cell}"]:
    """The picture at the largest whole zoom that fits, in the middle of a white square."""
    zoom = max(1, cell // max(picture.shape[1:]))
    large = _squares(picture[None], zoom)[0]
    page = torch.full((3, cell, cell), 255, dtype=torch.uint8)
    top, left = (cell - large.shape[1]) // 2, (cell - large.shape[2]) // 2
    page[:, top : top + large.shape[1], left : left + large.shape[2]] = large
    return page
