"""Pictures come in many forms; all of them become the same bytes, and what is ambiguous is refused."""

import numpy as np
import pytest
import torch
from cf_eval.images.read import image_batches, listed, to_bytes
from PIL import Image


def pictures(n: int = 5, height: int = 7, width: int = 9) -> torch.Tensor:
    draw = torch.Generator().manual_seed(n)
    return torch.randint(0, 256, (n, 3, height, width), generator=draw).to(torch.uint8)


def as_pillow(x: torch.Tensor) -> list[Image.Image]:
    return [Image.fromarray(one.movedim(0, 2).numpy()) for one in x]


def save(x: torch.Tensor, folder, names) -> None:
    for image, name in zip(as_pillow(x), names, strict=True):
        (folder / name).parent.mkdir(exist_ok=True)
        image.save(folder / name)


@pytest.mark.parametrize("form", ["tensor", "array", "pillow", "tensors", "arrays", "folder", "files"])
def test_every_form_of_the_same_pictures_gives_the_same_batches(form, tmp_path):
    x = pictures()
    names = ["a/1.png", "a/2.PNG", "b.png", "c.bmp", "d.png"]
    save(x, tmp_path, names)
    (tmp_path / "notes.txt").write_text("no picture")
    forms = {
        "tensor": x,
        "array": x.movedim(1, 3).numpy(),
        "pillow": as_pillow(x),
        "tensors": list(x),
        "arrays": tuple(x.movedim(1, 3).numpy()),
        "folder": tmp_path,
        "files": [str(tmp_path / name) for name in names],
    }
    batches = list(image_batches(forms[form], batch_size=2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert torch.equal(torch.cat(batches), x)
    assert len(listed(forms[form])) == 5


def test_a_list_may_mix_sizes_and_keeps_its_order():
    small, large = pictures(2, 4, 4), pictures(3, 6, 5)
    batches = list(image_batches([*small, *large, *small], batch_size=2))
    assert [tuple(batch.shape) for batch in batches] == [
        (2, 3, 4, 4),
        (2, 3, 6, 5),
        (1, 3, 6, 5),
        (2, 3, 4, 4),
    ]
    assert torch.equal(batches[2][0], large[2])


def test_nothing_gives_no_batches():
    assert list(image_batches(torch.zeros(0, 3, 4, 4, dtype=torch.uint8))) == []
    assert list(image_batches([])) == []


def test_floats_become_the_nearest_level_or_the_one_below():
    levels = torch.tensor([0.0, 0.5, 1.0, 100.4 / 255, 100.6 / 255]).view(1, 1, 1, 5).expand(1, 3, 1, 5)
    assert to_bytes(levels, "0..1")[0, 0, 0].tolist() == [0, 128, 255, 100, 101]
    assert to_bytes(levels, "0..1", "truncate")[0, 0, 0].tolist() == [0, 127, 255, 100, 100]
    assert torch.equal(to_bytes(2 * levels - 1, "-1..1"), to_bytes(levels, "0..1"))


@pytest.mark.parametrize(
    ("value_range", "floats"), [("0..1", lambda x: x / 255), ("-1..1", lambda x: x / 127.5 - 1)]
)
def test_bytes_survive_the_way_to_floats_and_back(value_range, floats):
    x = torch.arange(256).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(to_bytes(floats(x.float()), value_range).long(), x)


@pytest.mark.parametrize(
    ("images", "value_range", "message"),
    [
        (torch.zeros(2, 3, 4, 4), "uint8", "float32 with value_range 'uint8'; pass value_range="),
        (torch.zeros(2, 3, 4, 4, dtype=torch.int64), "uint8", "int64 with value_range 'uint8'"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "0..1", "bytes are 'uint8'"),
        (torch.zeros(2, 3, 4, 4) - 0.5, "0..1", r"image 0 has values from -0.5 to -0.5, outside of 0\.\.1"),
        (torch.full((2, 3, 4, 4), 200.0), "-1..1", "image 0 has values from 200 to 200"),
        (torch.zeros(2, 3, 4, 4), "0..255", r"unknown value_range '0..255'; known: uint8, 0\.\.1, -1\.\.1"),
        (torch.zeros(2, 4, 4, 3), "0..1", r"must be \(b, 3, h, w\), got \(2, 4, 4, 3\)"),
        (np.zeros((2, 3, 4, 4)), "0..1", r"must be \(b, h, w, 3\), got .*torch.from_numpy"),
        ([torch.zeros(1, 3, 4, 4)], "0..1", "image 0 is torch.Size"),
        (7, "uint8", "not <class 'int'>"),
    ],
)
def test_what_is_ambiguous_or_no_picture_is_refused(images, value_range, message):
    with pytest.raises(ValueError, match=message):
        list(image_batches(images, value_range))


def test_a_picture_with_nan_is_named_also_in_a_later_batch():
    x = torch.zeros(5, 3, 2, 2)
    x[3, 1, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="image 3 has values"):
        list(image_batches(x, "0..1", batch_size=2))


def test_a_damaged_file_is_named_and_an_empty_folder_too(tmp_path):
    with pytest.raises(ValueError, match="no pictures in"):
        list(image_batches(tmp_path))
    save(pictures(2, 40, 40), tmp_path, ["1.png", "2.png"])
    content = (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"2\.png cannot be read as a picture"):
        list(image_batches(tmp_path))


def test_grey_and_transparent_pictures_become_rgb_and_16_bit_ones_are_refused():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    (batch,) = image_batches(Image.fromarray(grey))
    assert torch.equal(batch[0], torch.from_numpy(grey).expand(3, 3, 4))
    rgba = np.dstack([grey, grey + 1, grey + 2, grey * 0])
    (batch,) = image_batches([Image.fromarray(rgba)])
    assert torch.equal(batch[0], torch.from_numpy(rgba[..., :3]).movedim(2, 0))
    with pytest.raises(ValueError, match="image 0 has Pillow mode I;16"):
        list(image_batches([Image.fromarray(grey.astype(np.uint16) * 256)]))
