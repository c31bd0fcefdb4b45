"""Grids: every image where it belongs, its pixels exact, words under it."""

import time

import numpy as np
import pytest
import torch
from cf_apps.engine import RunError
from cf_apps.engine.watching.render import (
    FRAME,
    GAP,
    GIF_SIDE,
    HOLD,
    MAX_LINES,
    PAPER,
    _wrapped,
    image_grid,
    save_figure,
    save_gif,
    save_png,
    stacked,
    to_bytes,
    to_pil,
)
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


def test_bytes_stay_as_they_are_and_floats_become_those_of_the_file(tmp_path):
    image = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    path = save_png(to_pil(image), tmp_path / "a.png")
    assert torch.equal(to_bytes(image), torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1))
    assert torch.equal(to_bytes(to_bytes(image)), to_bytes(image))


def test_pages_of_different_widths_lie_under_one_another():
    pages = [image_grid(plain(*COLOURS[:2]), 2), image_grid(plain(COLOURS[2]), 1)]
    whole = stacked(pages)
    assert whole.size == (pages[0].width, pages[0].height + pages[1].height)
    assert whole.crop((0, 0, *pages[0].size)).tobytes() == pages[0].tobytes()
    below = whole.crop((0, pages[0].height, pages[1].width, whole.height))
    assert below.tobytes() == pages[1].tobytes()
    assert whole.getpixel((whole.width - 1, whole.height - 1)) == PAPER


@pytest.mark.parametrize("text", ["ein grüner Kreis", "красный круг", "עיגול", "λ ≤ 3"])
def test_letters_beyond_ascii_are_drawn_and_not_boxed(text):
    """Each word must differ from as many boxes, which a font draws for what it does not know."""
    known = image_grid(plain((255, 255, 255)), 1, captions=[text])
    boxes = image_grid(plain((255, 255, 255)), 1, captions=["é" + "\U000fffff" * (len(text) - 1)])
    assert known.size == boxes.size
    ink, box = ((np.asarray(page.convert("L")) < 60)[GAP + 96 :] for page in (known, boxes))
    assert ink.any()
    assert (ink != box).sum() > ink.sum() / 4


# ------------------------------------------------------------------------------------------------- moving pictures


def frames_of(path) -> list[tuple[np.ndarray, int]]:
    with Image.open(path) as moving:
        shown = []
        for place in range(moving.n_frames):
            moving.seek(place)
            shown.append((np.asarray(moving.convert("RGB")), moving.info["duration"]))
        return shown


def test_a_gif_plays_every_frame_in_order_for_ever(tmp_path):
    path = save_gif(plain(*COLOURS, side=17), tmp_path / "new" / "a.gif", hold=[0, 4])
    shown = frames_of(path)
    assert [tuple(frame[3, 3]) for frame, _ in shown] == COLOURS
    assert [time for _, time in shown] == [HOLD, FRAME, FRAME, FRAME, HOLD]
    with Image.open(path) as moving:
        assert moving.info["loop"] == 0  # without end
    assert [p.name for p in path.parent.iterdir()] == ["a.gif"]


def test_a_gif_keeps_up_to_256_colours_and_enlarges_by_a_whole_factor(tmp_path):
    images = torch.randint(
        0, 256, (3, 3, 12, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    shown = frames_of(save_gif(images, tmp_path / "a.gif"))
    factor = GIF_SIDE // 12
    for (frame, _), image in zip(shown, images, strict=True):
        assert np.array_equal(frame, image.permute(1, 2, 0).numpy().repeat(factor, 0).repeat(factor, 1))


def test_a_gif_of_many_colours_is_near(tmp_path):
    ramp = torch.linspace(0, 1, 200).expand(200, 200)
    images = torch.stack([ramp, ramp.T, 1 - ramp])[None] * torch.tensor([1.0, 0.5]).view(2, 1, 1, 1)
    for (frame, _), image in zip(frames_of(save_gif(images, tmp_path / "a.gif")), images, strict=True):
        error = np.abs(frame.astype(float) - 255 * image.permute(1, 2, 0).numpy())
        assert error.mean() < 5
        assert frame.shape == (200, 200, 3)


def test_equal_frames_last_as_long_as_all_of_them(tmp_path):
    path = save_gif(plain(COLOURS[0], COLOURS[0], COLOURS[1]), tmp_path / "a.gif", hold=[0])
    assert sum(time for _, time in frames_of(path)) == HOLD + 2 * FRAME


def test_a_gif_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = save_gif(plain(*COLOURS), tmp_path / "a.gif")
    before = path.read_bytes()

    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(RunError, match=r"cannot write .*a\.gif: No space left on device"):
        save_gif(plain(*COLOURS[::-1]), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.gif"]
    with pytest.raises(ValueError, match="at least one frame, got none"):
        save_gif(plain(*COLOURS)[:0], path)


def test_a_figure_becomes_a_png(tmp_path):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    FigureCanvasAgg(figure := Figure(figsize=(2, 1)))
    with Image.open(save_figure(figure, tmp_path / "new" / "a.png")) as picture:
        assert picture.size == (220, 110)


@pytest.mark.parametrize("width", [40, 96, 300])
def test_a_word_that_does_not_fit_loses_as_few_letters_as_it_must(width):
    font = ImageFont.load_default(12)
    word = "honorificabilitudinitatibus" * 4
    (line,) = _wrapped(word, width, font)
    kept = line.removesuffix("…")
    assert word.startswith(kept)
    assert font.getlength(line) <= width < font.getlength(f"{kept}{word[len(kept)]}…")


def test_captions_of_any_length_take_little_time():
    images = plain(COLOURS[0])
    for text in ("x" * 100_000, "circle " * 100_000, "ש" * 100_000):
        start = time.process_time()  # of this process: others may keep the machine busy
        page = image_grid(images, 1, captions=[text])
        assert time.process_time() - start < 5
        assert page.height < 96 + 2 * GAP + 15 * MAX_LINES + 1
