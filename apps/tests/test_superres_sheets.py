"""Sheets show the small picture, bicubic and ours at the same places, the detailed ones."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cf_apps.data.picture_sets import PictureArray
from cf_apps.superres.sheets import comparison, detailed_places, held_out_sheet

sys.path.insert(0, str(Path(__file__).parent))
from superres_tiny import ONCE, noise, still


def detail_at(picture: torch.Tensor, top: int, left: int, side: int) -> float:
    """The sum of differences of neighbours that begin inside a square, pixel by pixel."""
    grey = picture.float().mean(0).double().numpy()
    total = 0.0
    for y in range(top, top + side):
        for x in range(left, left + side):
            total += abs(grey[y + 1, x] - grey[y, x]) if y + 1 < grey.shape[0] else 0.0
            total += abs(grey[y, x + 1] - grey[y, x]) if x + 1 < grey.shape[1] else 0.0
    return total


def test_the_first_crop_is_the_square_with_the_most_detail():
    picture = noise(3, 13, 17)
    side = 5
    (place,) = detailed_places(picture, side, 1)
    all_places = [(y, x) for y in range(13 - side + 1) for x in range(17 - side + 1)]
    best = max(all_places, key=lambda p: detail_at(picture, *p, side))
    assert detail_at(picture, *place, side) == pytest.approx(detail_at(picture, *best, side))


def test_crops_do_not_overlap_and_there_are_no_more_than_fit():
    places = detailed_places(noise(3, 20, 33), 10, 9)
    assert 1 <= len(places) <= 6
    for i, (y, x) in enumerate(places):
        assert 0 <= y <= 10
        assert 0 <= x <= 23
        assert all(abs(y - v) >= 10 or abs(x - u) >= 10 for v, u in places[:i])


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (9, 14), (50, 30), (4, 300)])
def test_a_picture_of_any_size_gets_a_sheet(size):
    small = noise(3, *size)
    ours = noise(3, 4 * size[0], 4 * size[1], seed=1)
    sheet = comparison(small, ours, 4)
    assert sheet.width < 1_500
    assert sheet.height < 2_200


def test_a_sheets_columns_are_the_small_picture_bicubic_and_ours():
    """Three flat pictures in three colours: ours differs from the small one, whose colour bicubic keeps."""
    small = torch.full((3, 12, 12), 40, dtype=torch.uint8)
    ours = torch.full((3, 48, 48), 210, dtype=torch.uint8)
    sheet = np.asarray(comparison(small, ours, 4))
    columns = np.array_split(sheet[60:100, 112:], 3, axis=1)
    assert [(column == 40).any() for column in columns] == [True, True, False]
    assert [(column == 210).all(-1).any() for column in columns] == [False, False, True]


def test_the_held_out_sheet_has_a_row_for_each_picture():
    pictures = noise(3, 3, 16, 16)
    sheet = held_out_sheet(still(), PictureArray(pictures, "toy"), ONCE, seed=0)
    one = held_out_sheet(still(), PictureArray(pictures[:1], "toy"), ONCE, seed=0)
    assert sheet.width == one.width
    assert sheet.height - one.height == 2 * (one.height - 23)
