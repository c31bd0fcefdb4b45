"""Grids: every image where it belongs, its pixels exact, words under it."""

import numpy as np
import pytest
import torch
from cf_apps.engine import RunError
from cf_apps.engine.render import GAP, MAX_LINES, _wrapped, image_grid, save_png, to_pil
from PIL import Image, ImageFont


def plain(*colours, side=96):
    return torch.tensor(colours, dtype=torch.uint8)[:, :, None, None].expand(-1, 3, side, side)


COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 8, 7), (200, 100, 50)]


def test_images_lie_row_by_row():
    page = image_grid(plain(*COLOURS), columns=2)
    step = 96 + GAP
    for place, colour in enumerate(COLOURS):
        centre = (GAP + place % 2 * step + 48, GAP + place // 2 * step + 48)
        assert page.getpixel(centre) == colour
    assert page.getpixel((GAP + step + 48, GAP + 2 * step + 48)) == (255, 255, 255)  # no sixth image


def test_small_images_grow_by_a_whole_factor_and_keep_their_pixels():
    image = torch.randint(0, 256, (1, 3, 7, 9), dtype=torch.uint8)
    page = np.asarray(image_grid(image))
    factor = 14  # the least with 7 · 14 >= 96
    grown = image[0].permute(1, 2, 0).numpy().repeat(factor, 0).repeat(factor, 1)
    assert np.array_equal(page[GAP : GAP + 7 * factor, GAP : GAP + 9 * factor], grown)


def test_a_large_image_keeps_its_size_unless_asked():
    assert image_grid(plain(COLOURS[0], side=128)).size == (128 + 2 * GAP, 128 + 2 * GAP)
    assert image_grid(plain(COLOURS[0], side=128), upscale=2).size == (256 + 2 * GAP, 256 + 2 * GAP)


def test_floats_are_rounded_and_clamped():
    image = torch.tensor([-0.5, 0.5, 1.5]).view(3, 1, 1)
    assert to_pil(image).getpixel((0, 0)) == (0, 128, 255)


def test_captions_and_titles_leave_ink_where_they_belong():
    ink = lambda page: np.asarray(page.convert("L")) < 60  # noqa: E731
    images = plain((255, 255, 255), (255, 255, 255))
    page = ink(image_grid(images, 2, captions=["", "a red circle"]))
    assert not page[:, : GAP + 96].any()
    assert page[GAP + 96 :, 2 * GAP + 96 :].any()
    assert ink(image_grid(images, 2, column_titles=["", "guided"]))[: GAP + 14, 2 * GAP + 96 :].any()
    assert ink(image_grid(images, 1, row_titles=["", "two"]))[GAP + 96 :, : GAP + 96].any()


def test_long_captions_wrap_within_the_width_and_end_in_an_ellipsis():
    font = ImageFont.load_default(12)
    lines = _wrapped("a small red circle left of a big blue square " * 5, 96, font)
    assert len(lines) == MAX_LINES
    assert lines[-1].endswith("…")
    assert all(font.getlength(line) <= 96 for line in lines)
    assert _wrapped("honorificabilitudinitatibus", 96, font)[0].endswith("…")
    assert (
        " ".join(_wrapped("a small red circle above a square", 96, font))
        == "a small red circle above a square"
    )


@pytest.mark.parametrize("name", ["captions", "column_titles", "row_titles"])
def test_a_wrong_number_of_words_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must hold .* got 7"):
        image_grid(plain(*COLOURS), 2, **{name: ["x"] * 7})


def test_a_png_is_written_whole_and_its_folder_made(tmp_path):
    path = save_png(image_grid(plain(COLOURS[0])), tmp_path / "new" / "a.png")
    assert Image.open(path).getpixel((50, 50)) == (255, 0, 0)
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="choose another --out"):
        save_png(image_grid(plain(COLOURS[0])), tmp_path / "file" / "a.png")
