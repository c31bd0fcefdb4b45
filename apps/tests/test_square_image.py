"""Every way a picture can be stored, and every way it can be broken."""

import io

import numpy as np
import pytest
from cf_apps.data.square_image import UnreadableImage, rgb, shorter_side, square_rgb
from PIL import Image

BLUE = (10, 20, 200)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(size=(9, 9), colour=BLUE) -> Image.Image:
    return Image.new("RGB", size, colour)


def colour_of(pixels: np.ndarray) -> tuple[int, ...]:
    """The one colour of a picture that has only one."""
    assert np.ptp(pixels, axis=(1, 2)).max() == 0
    return tuple(pixels[:, 0, 0].tolist())


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("size", [(9, 9), (31, 7), (1, 1), (40, 64)])
def test_lossless_kinds_of_any_shape_keep_their_colour(kind, size):
    assert colour_of(square_rgb(encoded(plain(size), kind), 13)) == BLUE


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_kinds_keep_their_colour_nearly(kind):
    assert np.allclose(colour_of(square_rgb(encoded(plain((16, 16)), kind), 5)), BLUE, atol=4)


def test_axes_are_channel_row_column():
    pixels = np.random.default_rng(0).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    assert np.array_equal(square_rgb(encoded(Image.fromarray(pixels)), 7), pixels.transpose(2, 0, 1))


def test_the_centre_square_is_what_stays():
    strip = np.zeros((4, 12, 3), np.uint8)
    strip[:, 4:8] = 255
    assert colour_of(square_rgb(encoded(Image.fromarray(strip)), 4)) == (255, 255, 255)


def test_shrinking_averages_instead_of_picking_pixels():
    checkers = np.indices((64, 64)).sum(0) % 2 * 255
    grey = square_rgb(encoded(Image.fromarray(checkers.astype(np.uint8))), 8)
    assert np.abs(grey[:, 2:-2, 2:-2].astype(float) - 127.5).max() < 2


def test_transparent_parts_become_white():
    assert colour_of(square_rgb(encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0))), 8)) == (255, 255, 255)
    assert colour_of(square_rgb(encoded(Image.new("LA", (8, 8), (0, 51))), 8)) == (204, 204, 204)


def test_a_palette_is_looked_up_and_its_transparent_entry_is_white():
    image = Image.new("P", (8, 8), 1)
    image.putpalette([255, 0, 0, *BLUE])
    assert colour_of(square_rgb(encoded(image), 8)) == BLUE
    assert colour_of(square_rgb(encoded(image, transparency=1), 8)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(kind):
    deep = Image.fromarray(np.full((8, 8), 0x8000, np.uint16))
    assert colour_of(square_rgb(encoded(deep, kind), 8)) == (128, 128, 128)


def test_grey_and_bilevel_pictures_become_rgb():
    assert colour_of(square_rgb(encoded(Image.new("L", (8, 8), 77)), 8)) == (77, 77, 77)
    assert colour_of(square_rgb(encoded(Image.new("1", (8, 8), 1)), 8)) == (255, 255, 255)


def test_print_inks_become_rgb():
    cyan = square_rgb(encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "TIFF"), 8)
    assert colour_of(cyan) == (0, 255, 255)


def test_a_photo_stored_lying_down_is_turned_upright():
    pixels = np.zeros((6, 6, 3), np.uint8)
    pixels[:, :3] = 255  # white on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees clockwise to view"
    upright = square_rgb(encoded(Image.fromarray(pixels), "PNG", exif=exif), 6)
    assert upright[:, :3].min() == 255
    assert upright[:, 3:].max() == 0


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_truncated_file_says_so(kind, kept):
    data = encoded(noise(), kind)
    with pytest.raises(UnreadableImage, match=r"truncated|not an image"):
        square_rgb(data[: int(kept * len(data))], 8)


def test_an_empty_file_says_so():
    with pytest.raises(UnreadableImage, match="0 bytes"):
        square_rgb(b"", 8)


def test_text_is_not_an_image():
    with pytest.raises(UnreadableImage, match="not an image"):
        square_rgb(b"hello, this is a poem\n" * 9, 8)


def test_floating_point_pixels_are_not_guessed_at():
    with pytest.raises(UnreadableImage, match="8 bits"):
        square_rgb(encoded(Image.new("F", (8, 8), 0.5), "TIFF"), 8)


def test_a_picture_of_too_many_pixels_is_refused_and_not_decoded():
    data = encoded(Image.new("1", (10_000, 8_001)))
    with pytest.raises(UnreadableImage, match=r"10,000 x 8,001 pixels, and at most 80,000,000 are read"):
        square_rgb(data, 8)


def test_the_whole_picture_and_its_square_agree_where_the_picture_is_square():
    data = encoded(noise())
    assert np.array_equal(rgb(data), square_rgb(data, 64))


def test_broken_exif_costs_the_rotation_and_not_the_sample():
    data = encoded(plain(), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff nonsense")
    assert colour_of(square_rgb(data, 9)) == BLUE


def test_the_shorter_side_is_read_from_the_header_of_a_file_cut_off_behind_it(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(Image.new("RGB", (70, 40)), "JPEG")[:-50])
    assert shorter_side(tmp_path / "a.jpg") == 40
    (tmp_path / "b.jpg").write_bytes(b"")
    with pytest.raises(UnreadableImage, match="0 bytes"):
        shorter_side(tmp_path / "b.jpg")
