"""Pictures as people have them: every mode, every size, every way to be broken."""

import io
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from cf_apps.data.captioned import DataError
from cf_apps.data.pictures import MAX_PIXELS, centre_cropped, fitted, read_picture, resized
from cf_apps.data.square_image import shorter_side
from PIL import Image

BLUE = (10, 20, 200)


def stored(folder: Path, image: Image.Image, kind: str = "PNG", **options) -> Path:
    path = folder / f"picture.{kind.lower()}"
    image.save(path, kind, **options)
    return path


def with_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def palette() -> Image.Image:
    image = Image.new("P", (7, 5), 1)
    image.putpalette([255, 0, 0, *BLUE])
    return image


SIZE = (7, 5)  # width, height
GOOD = {
    # case: (picture, kind, options, its one colour)
    "rgb": (Image.new("RGB", SIZE, BLUE), "PNG", {}, BLUE),
    "grey": (Image.new("L", SIZE, 77), "PNG", {}, (77, 77, 77)),
    "bilevel": (Image.new("1", SIZE, 1), "PNG", {}, (255, 255, 255)),
    "palette": (palette(), "PNG", {}, BLUE),
    "palette with a transparent entry": (palette(), "PNG", {"transparency": 1}, (255, 255, 255)),
    "rgb with a transparent colour": (Image.new("RGB", SIZE, BLUE), "PNG", {"transparency": BLUE}, (255,) * 3),
    "transparent": (Image.new("RGBA", SIZE, (0, 0, 0, 0)), "PNG", {}, (255, 255, 255)),
    "half transparent grey": (Image.new("LA", SIZE, (0, 51)), "PNG", {}, (204, 204, 204)),
    "cmyk": (Image.new("CMYK", SIZE, (255, 0, 0, 0)), "TIFF", {}, (0, 255, 255)),
    "16-bit grey": (Image.fromarray(np.full((5, 7), 0x8000, np.uint16)), "PNG", {}, (128, 128, 128)),
    "16-bit grey tiff": (Image.fromarray(np.full((5, 7), 0xFFFF, np.uint16)), "TIFF", {}, (255, 255, 255)),
    "32-bit grey": (Image.fromarray(np.full((5, 7), 70_000, np.int32)), "TIFF", {}, (255, 255, 255)),
    "luma and chroma": (Image.new("RGB", SIZE, BLUE).convert("YCbCr"), "TIFF", {}, (8, 19, 198)),
    "bmp": (Image.new("RGB", SIZE, BLUE), "BMP", {}, BLUE),
    "webp": (Image.new("RGB", SIZE, BLUE), "WEBP", {"lossless": True}, BLUE),
    "animated gif": (
        palette(), "GIF", {"save_all": True, "append_images": [Image.new("L", SIZE, 9)]}, BLUE,
    ),
    "animated png": (
        Image.new("RGB", SIZE, BLUE), "PNG", {"save_all": True, "append_images": [Image.new("RGB", SIZE)]}, BLUE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", GOOD)
def test_a_picture_of_any_mode_is_read_whole_in_rgb(case, tmp_path):
    image, kind, options, colour = GOOD[case]
    picture = read_picture(stored(tmp_path, image, kind, **options))
    assert picture.shape == (3, 5, 7)
    assert torch.equal(picture, torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(3, 5, 7))


def test_every_level_of_sixteen_bits_is_scaled_to_the_nearest_of_eight(tmp_path):
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    grey = read_picture(stored(tmp_path, Image.fromarray(levels)))[0]
    assert np.array_equal(grey.numpy(), np.rint(levels.astype(np.float64) / 65535 * 255))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_upright_whichever_way_the_camera_was_held(orientation, tmp_path):
    seen = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    turns = {  # EXIF: what was done to the scene when it was stored
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    image = Image.fromarray(np.ascontiguousarray(turns[orientation](seen)))
    path = stored(tmp_path, image, exif=with_exif(orientation))
    assert np.array_equal(read_picture(path).permute(1, 2, 0).numpy(), seen)
    assert shorter_side(path) == 5


def test_broken_exif_costs_the_rotation_and_not_the_picture(tmp_path):
    path = stored(
        tmp_path, Image.new("RGB", SIZE, BLUE), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff nonsense"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_picture(path).shape == (3, 5, 7)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 300), (301, 2), (8_000, 8_000), (79_999, 1_000)])
def test_pictures_of_any_size_are_read_without_a_warning(width, height, tmp_path):
    path = stored(tmp_path, Image.new("1", (width, height), 1), compress_level=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = read_picture(path)
    assert picture.shape == (3, height, width)
    assert picture.min() == 255


def test_a_picture_over_the_limit_is_refused_before_it_is_decoded(tmp_path):
    for width, height in [
        (10_000, 8_001),
        (20_000, 9_000),
    ]:  # Pillow warns of the first and refuses the second
        path = stored(tmp_path, Image.new("1", (width, height)))
        with pytest.raises(DataError, match=f"at most {MAX_PIXELS:,} are read.* or smaller") as raised:
            read_picture(path)
        assert str(path) in str(raised.value)


def bytes_of(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


BAD = {
    # case: (bytes, what the message says)
    "empty": (b"", "empty"),
    "a poem": (b"hello, this is a poem\n" * 9, "not an image"),
    "an html page": (b"<!doctype html><title>404</title>", "not an image"),
    "zeros": (bytes(5_000), "not an image"),
    "half a png": (bytes_of("PNG")[:6_000], "truncated"),
    "half a jpeg": (bytes_of("JPEG")[:1_500], "truncated"),
    "half a webp": (bytes_of("WEBP")[:1_500], "truncated|not an image"),
    "a png's signature": (bytes_of("PNG")[:8], "not an image|truncated"),
    "a png header that promises too much": (
        bytes_of("PNG")[:16] + b"\0\xff\xff\xff\0\xff\xff\xff" + bytes_of("PNG")[24:], "not an image|too large",
    ),
    "a jpeg with its head cut off": (bytes_of("JPEG")[200:], "not an image"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_named_with_the_reason_and_the_remedy_in_one_line(case, tmp_path):
    data, words = BAD[case]
    path = tmp_path / "cat.png"
    path.write_bytes(data)
    with pytest.raises(DataError, match=words) as raised:
        read_picture(path)
    message = str(raised.value)
    assert str(path) in message
    assert "leave it out" in message
    assert "\n" not in message


def test_pixels_without_an_agreed_white_are_refused(tmp_path):
    with pytest.raises(DataError, match="8 bits a channel"):
        read_picture(stored(tmp_path, Image.new("F", SIZE, 0.5), "TIFF"))


def test_what_is_no_file_is_called_what_it_is(tmp_path):
    with pytest.raises(DataError, match="no such picture"):
        read_picture(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match="is a folder; give the pictures in it"):
        read_picture(str(tmp_path))
    with pytest.raises(DataError, match="name too long"):
        read_picture("a red circle " * 10_000)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="not a file"):
        read_picture(tmp_path / "pipe.png")


def noise(height: int, width: int) -> torch.Tensor:
    return torch.randint(
        256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("size", [(11, 13), (37, 53), (90, 61), (1, 1)])
def test_resized_is_pillows_bicubic_within_one_level(size):
    picture = noise(37, 53)
    pillow = Image.fromarray(picture.permute(1, 2, 0).numpy()).resize(size[::-1], Image.Resampling.BICUBIC)
    difference = resized(picture, *size).permute(1, 2, 0).int() - torch.from_numpy(np.array(pillow)).int()
    assert difference.abs().max() <= 1


def test_resizing_to_the_same_size_changes_nothing():
    assert torch.equal(resized(noise(9, 7), 9, 7), noise(9, 7))
    with pytest.raises(ValueError, match="at least 1 x 1"):
        resized(noise(9, 7), 0, 7)


@pytest.mark.parametrize(("given", "wanted"), [((5, 7), (5, 5)), ((7, 4), (4, 4)), ((9, 9), (3, 9))])
def test_fitted_cuts_the_centre_out_where_nothing_needs_scaling(given, wanted):
    picture = noise(*given)
    top, left = (given[0] - wanted[0]) // 2, (given[1] - wanted[1]) // 2
    expected = picture[:, top : top + wanted[0], left : left + wanted[1]]
    assert torch.equal(fitted(picture, *wanted), expected)
    assert torch.equal(centre_cropped(picture, *wanted), expected)


@pytest.mark.parametrize("given", [(1, 1), (1, 200), (200, 1), (3, 1_000), (64, 48)])
@pytest.mark.parametrize("wanted", [(32, 32), (17, 33), (1, 1)])
def test_any_picture_can_be_fitted_to_any_size_and_keeps_its_one_colour(given, wanted):
    colour = torch.tensor([10, 20, 200], dtype=torch.uint8)[:, None, None]
    out = fitted(colour.expand(3, *given), *wanted)
    assert torch.equal(out, colour.expand(3, *wanted))


def test_fitted_averages_when_it_shrinks():
    checkers = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    grey = fitted(torch.from_numpy(checkers).expand(3, 64, 64), 8, 8)
    assert (grey[:, 2:-2, 2:-2].float() - 127.5).abs().max() < 2
