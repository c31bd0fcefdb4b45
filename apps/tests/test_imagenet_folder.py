"""ImageNet's layout and any other folder: what is kept, what is left out and why, and who is on which side."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from cf_apps.data import picture_files
from cf_apps.data.captioned import DataError
from cf_apps.data.imagenet_folder import load_folder, load_imagenet
from cf_apps.data.picture_files import PictureFiles, scan
from PIL import Image, ImageOps


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def noise(width: int, height: int, seed: int) -> Image.Image:
    """Around grey, so that no filter overshoots the range and has to be clipped."""
    pixels = np.random.default_rng(seed).integers(90, 166, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def put(path: Path, image: Image.Image, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def imagenet(root: Path) -> Path:
    """Three classes of the real layout, val flat as it is distributed, with every kind of bad file."""
    for number in range(12):
        name = f"n0144{number % 3:04d}"
        put(root / "train" / name / f"{name}_{number}.JPEG", noise(20 + number, 18, number))
    for number in range(4):
        put(root / "val" / f"ILSVRC2012_val_{number:08d}.JPEG", noise(18, 30, 100 + number))
    put(root / "train" / "n01440000" / "n01440000_90.JPEG", noise(40, 15, 90))  # too low
    put(root / "val" / "ILSVRC2012_val_00000090.JPEG", noise(15, 40, 91))  # too narrow
    (root / "train" / "n01440000" / "n01440000_91.JPEG").write_bytes(b"")
    (root / "train" / "n01440001" / "n01440001_92.JPEG").write_text("not found")
    (root / "train" / "n01440001" / "._n01440001_1.JPEG").write_text("left by a Mac")
    (root / "train" / "readme.txt").write_text("hello")
    return root


def test_pictures_with_a_side_below_the_size_are_dropped_and_bad_files_skipped_and_both_are_counted(tmp_path):
    found = load_imagenet(imagenet(tmp_path / "in"), 16)
    assert len(found.train) + len(found.val) == 12
    assert len(found.test) == 4
    assert found.too_small == 2
    assert dict(found.skipped.samples) == {
        "train/n01440000/n01440000_91.JPEG": "the file is empty (0 bytes)",
        "train/n01440001/n01440001_92.JPEG": "not an image, or of a kind Pillow cannot read",
    }


def test_a_picture_is_its_centre_square_resized_bicubically(tmp_path):
    root = imagenet(tmp_path / "in")
    files = load_imagenet(root, 16).test
    for index, name in enumerate(files.files):
        with Image.open(root / name) as image:
            by_hand = image.crop((0, 6, 18, 24)).resize((16, 16), Image.Resampling.BICUBIC)  # of 18 x 30
        expected = torch.from_numpy(np.array(by_hand)).permute(2, 0, 1)
        square = files.batch(torch.tensor([index]))[0]
        # in the first and last rows the filter also sees what lies beyond the cut; elsewhere it rounds otherwise
        assert (square[:, 2:-2].int() - expected[:, 2:-2].int()).abs().max() <= 1


def test_the_order_is_the_same_every_time_and_has_every_picture_once(tmp_path):
    root = imagenet(tmp_path / "in")
    one, two = load_imagenet(root, 16), load_imagenet(root, 16)
    for part in ("train", "val", "test"):
        a, b = getattr(one, part), getattr(two, part)
        assert a == b
        assert list(a.files) == sorted(a.files)
        if len(a):
            assert torch.equal(a.batch(torch.arange(len(a))), b.batch(torch.arange(len(b))))
    assert len({*one.train.files, *one.val.files, *one.test.files}) == 16


def test_a_file_that_is_damaged_below_its_header_gives_its_place_to_the_next(tmp_path):
    folder = tmp_path / "in"
    for number in range(4):
        put(folder / f"{number}.png", noise(20, 20, number))
    damaged = folder / "1.png"
    damaged.write_bytes(damaged.read_bytes()[:700])
    files = PictureFiles(folder, ("0.png", "1.png", "2.png", "3.png"), 16, "toy")
    batch = files.batch(torch.tensor([1, 2, 0, 1]))
    assert torch.equal(batch[0], batch[1])
    assert torch.equal(batch[0], batch[3])
    assert not torch.equal(batch[0], batch[2])
    assert list(files.unreadable) == ["1.png"]
    assert "truncated" in files.unreadable["1.png"]


def test_a_set_of_which_nothing_can_be_read_says_so(tmp_path):
    put(tmp_path / "0.png", noise(20, 20, 0)).write_bytes(b"")
    with pytest.raises(DataError, match=r"no picture can be read.*0\.png.*0 bytes"):
        PictureFiles(tmp_path, ("0.png",), 16, "toy").batch(torch.tensor([0]))


def test_a_decoded_picture_is_kept_and_read_from_its_file_once(tmp_path, monkeypatch):
    put(tmp_path / "0.png", noise(20, 20, 0))
    files = PictureFiles(tmp_path, ("0.png",), 16, "toy")
    first = files.batch(torch.tensor([0]))
    (tmp_path / "0.png").unlink()
    assert torch.equal(files.batch(torch.tensor([0])), first)
    monkeypatch.setattr(picture_files, "KEPT_BYTES", 0)
    with pytest.raises(DataError):
        PictureFiles(tmp_path, ("0.png",), 16, "toy").batch(torch.tensor([0]))


def test_an_index_outside_the_set_is_refused(tmp_path):
    put(tmp_path / "0.png", noise(20, 20, 0))
    for index in (-1, 1):
        with pytest.raises(IndexError, match="outside toy of 1"):
            PictureFiles(tmp_path, ("0.png",), 16, "toy").batch(torch.tensor([index]))


def folder_of(root: Path, count: int, first: int = 0) -> Path:
    for number in range(first, first + count):
        put(root / f"{number:03d}.png", noise(9, 8, number))
    return root


def test_copies_of_a_picture_are_on_one_side_and_adding_pictures_moves_none(tmp_path):
    folder = folder_of(tmp_path / "in", 60)
    before = load_folder(folder, 8)
    sides = {f: part for part in ("train", "val", "test") for f in getattr(before, part).files}
    assert len(sides) == 60
    assert all(len(getattr(before, part)) for part in ("train", "val", "test"))
    (folder / "sub").mkdir()
    for number in range(60):
        (folder / "sub" / f"copy{number}.PNG").write_bytes((folder / f"{number:03d}.png").read_bytes())
    folder_of(folder, 20, first=100)
    after = load_folder(folder, 8)
    now = {f: part for part in ("train", "val", "test") for f in getattr(after, part).files}
    assert all(now[f] == side for f, side in sides.items())
    assert all(now[f"sub/copy{number}.PNG"] == sides[f"{number:03d}.png"] for number in range(60))


def test_even_two_pictures_leave_one_to_train_on_and_one_to_test(tmp_path):
    found = load_folder(folder_of(tmp_path / "in", 2), 8)
    assert (len(found.train), len(found.test), len(found.val)) == (1, 1, 0)


def test_a_folder_without_anything_to_use_says_what_it_holds(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        load_folder(tmp_path / "empty", 8)
    with pytest.raises(DataError, match=r"none of 3 pictures.*3 have a side shorter than 64"):
        load_folder(folder_of(tmp_path / "small", 3), 64)
    with pytest.raises(DataError, match="no train and val folders"):
        load_imagenet(tmp_path / "small")
    (tmp_path / "half" / "val").mkdir(parents=True)
    folder_of(tmp_path / "half" / "train" / "n0", 3)
    with pytest.raises(DataError, match=r"half/val holds no pictures"):
        load_imagenet(tmp_path / "half", 8)


def test_the_list_of_sizes_is_kept_and_only_new_and_changed_files_are_opened_again(tmp_path, monkeypatch):
    monkeypatch.setattr(picture_files, "CACHED_FROM", 3)
    folder, cache = folder_of(tmp_path / "in", 5), tmp_path / "sizes.json"
    first = scan(folder, cache)
    opened = []
    measured = picture_files._measured
    monkeypatch.setattr(picture_files, "_measured", lambda *a: opened.append(a[1]) or measured(*a))
    assert scan(folder, cache) == first
    assert opened == []
    put(folder / "001.png", noise(50, 40, 7))
    os.utime(folder / "001.png", ns=(1, 1))
    put(folder / "999.png", noise(9, 8, 7))
    (folder / "002.png").unlink()
    again = {it.name: it for it in scan(folder, cache)}
    assert sorted(opened) == ["001.png", "999.png"]
    assert again["001.png"].shorter_side == 40
    assert "002.png" not in again
    assert {it.name for it in picture_files._read_cache(cache)} == set(again)


@pytest.mark.parametrize("content", ["", "[1, 2]", "{}", '[["a"]]', "\0"])
def test_a_spoilt_list_of_sizes_is_made_anew(content, tmp_path, monkeypatch):
    monkeypatch.setattr(picture_files, "CACHED_FROM", 1)
    folder, cache = folder_of(tmp_path / "in", 3), tmp_path / "sizes.json"
    cache.write_text(content)
    assert len(scan(folder, cache)) == 3
    assert len(json.loads(cache.read_text())) == 3


def test_a_place_that_cannot_be_written_costs_only_the_list(tmp_path, monkeypatch):
    monkeypatch.setattr(picture_files, "CACHED_FROM", 1)
    (tmp_path / "file").write_text("in the way")
    assert len(scan(folder_of(tmp_path / "in", 3), tmp_path / "file" / "sizes.json")) == 3


def test_the_usual_place_of_the_list_is_the_cache_folder_and_not_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr(picture_files, "CACHED_FROM", 1)
    folder = folder_of(tmp_path / "in", 3)
    scan(folder)
    assert len(list((tmp_path / "cache" / "crossflow").glob("sizes-*.json"))) == 1
    assert len(list(folder.iterdir())) == 3


def test_many_threads_see_the_same_pictures_as_one(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "in", 30)
    monkeypatch.setattr(picture_files, "THREADS", 8)
    files = load_folder(folder, 8).train
    together = files.batch(torch.arange(len(files)))
    for index, name in enumerate(files.files):
        with Image.open(folder / name) as image:
            square = ImageOps.fit(image, (8, 8), Image.Resampling.BICUBIC)
        assert torch.equal(together[index], torch.from_numpy(np.array(square)).permute(2, 0, 1))
