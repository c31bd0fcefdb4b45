"""Pictures by name: three parts that do not overlap, and a clear word where there is nothing."""

import numpy as np
import pytest
import torch
from cf_apps.data.bundled import load_emoji
from cf_apps.data.captioned import DataError
from cf_apps.data.picture_sets import PictureSet, open_pictures
from PIL import Image


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    for number in range(40):
        pixels = np.random.default_rng(number).integers(0, 256, (17, 19, 3), dtype=np.uint8)
        for part in ("plain", "in/train/n0", "in/val"):
            (tmp_path / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / part / f"{part[:2]}{number}.png")
    (tmp_path / "plain" / "bad.png").write_text("no picture")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "size"), [("shapes", 32), ("shapes", 64), ("emoji", 32), ("plain", 16), ("in", 16)]
)
def test_every_source_gives_bytes_of_its_size_in_any_order(name, size, folder):
    found = open_pictures(name if name in ("shapes", "emoji") else str(folder / name), size)
    for part in (found.train, found.val, found.test):
        if name == "in" and part is found.val:
            continue
        assert isinstance(part, PictureSet)
        assert part.image_size == size
        indices = torch.tensor([len(part) - 1, 0, 0])
        batch = part.batch(indices)
        assert batch.shape == (3, 3, size, size)
        assert batch.dtype == torch.uint8
        assert torch.equal(batch[1], batch[2])
        assert torch.equal(batch[:1], part.batch(indices[:1]))


@pytest.mark.parametrize("name", ["shapes", "emoji", "plain"])
def test_no_picture_is_in_two_parts(name, folder):
    found = open_pictures(name if name != "plain" else str(folder / name), 16 if name == "plain" else 32)
    parts = [
        {p.numpy().tobytes() for p in part.batch(torch.arange(min(len(part), 300)))}
        for part in (found.train, found.val, found.test)
    ]
    assert all(parts)
    assert len(set.union(*parts)) == sum(len(part) for part in parts)


def test_the_bundled_set_trains_on_its_training_half_and_holds_out_all_of_the_other():
    found = open_pictures("emoji", 32)
    assert len(found.train) == len(load_emoji("train", 32))
    assert len(found.val) + len(found.test) == len(load_emoji("val", 32))
    assert min(len(found.val), len(found.test)) > 50


def test_the_seed_changes_what_is_trained_on_and_not_what_is_reported():
    one, two = open_pictures("shapes", 32, seed=0), open_pictures("shapes", 32, seed=1)
    first = torch.arange(8)
    assert not torch.equal(one.train.batch(first), two.train.batch(first))
    assert torch.equal(one.test.batch(first), two.test.batch(first))
    assert torch.equal(one.val.batch(first), two.val.batch(first))


def test_what_a_folder_could_not_give_is_counted(folder):
    found = open_pictures(str(folder / "plain"), 16)
    assert [name for name, _ in found.skipped.samples] == ["bad.png"]
    assert found.too_small == 0
    assert found.name == str((folder / "plain").resolve())


def test_what_is_no_source_is_refused_with_the_known_ones(folder, tmp_path):
    with pytest.raises(DataError, match=r"does not exist.*shapes, emoji"):
        open_pictures(str(tmp_path / "nowhere"), 32)
    with pytest.raises(DataError, match="is a file"):
        open_pictures(str(folder / "plain" / "bad.png"), 32)
    with pytest.raises(DataError, match="32 and 64"):
        open_pictures("emoji", 48)
    with pytest.raises(DataError, match="40 have a side shorter than 64"):
        open_pictures(str(folder / "plain"), 64)
