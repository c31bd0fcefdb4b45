"""One's own pairs: a folder, a numpy file, and what people get wrong in them."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cf_apps.data.captioned import DataError
from cf_apps.data.depth_pairs import DepthArrays
from cf_apps.data.depth_sets import own
from cf_apps.data.depth_sets.by_name import open_depth
from cf_apps.data.depth_sets.own import in_memory, own_arrays, own_folder, three_ways

sys.path.insert(0, str(Path(__file__).parent))
from depth_layouts import write_own, write_png16, write_rgb

NAMES = [f"{scene}/{number}" for scene in ("attic", "bath", "cellar", "den") for number in range(3)]


def test_a_folder_is_read_in_metres_by_its_scale(tmp_path):
    write_own(tmp_path, ["one", "two"])
    pair = own_folder(tmp_path, (6, 8)).pair(0)
    assert pair.depth[1:, :8].eq(2.0).all()
    assert pair.depth[1:, 8:].eq(4.0).all()
    assert not pair.valid[0].any()
    assert pair.valid[1:].all()
    (tmp_path / "depth.json").write_text('{"scale": 0.01}')
    assert own_folder(tmp_path, (6, 8)).pair(0).depth[1, 0] == 20.0


def test_pictures_of_one_folder_stay_on_one_side(tmp_path):
    write_own(tmp_path, NAMES)
    source = open_depth(str(tmp_path), (6, 8))
    sides = []
    for pairs in (source.train, source.val["val"].pairs, source.test["test"].pairs):
        # the picture's colour says its number, three to a scene
        colours = pairs.batch(torch.arange(len(pairs))).images[:, 0, 0, 0]
        sides.append({int(c - 10) // 5 // 3 for c in colours})
    assert sides[0].isdisjoint(sides[1] | sides[2])
    assert set.union(*sides) == {0, 1, 2, 3}
    assert all(sides)


def test_the_side_of_a_group_depends_on_its_name_alone():
    groups = [f"scene {i}" for i in range(300)]
    train, val, test = three_ways(groups)
    assert sorted([*train.tolist(), *val.tolist(), *test.tolist()]) == list(range(300))
    assert 8 <= len(val) <= 25
    assert 8 <= len(test) <= 25
    named = {groups[i] for i in val.tolist()}
    fewer = groups[50:]
    assert {fewer[i] for i in three_ways(fewer)[1].tolist()} == named & set(fewer)


def test_one_held_out_group_serves_both_halves_and_a_single_one_everything():
    train, val, test = three_ways(["a", "a", "b"])
    assert val.equal(test)
    assert len(train) + len(val) == 3
    assert [part.tolist() for part in three_ways(["a", "a"])] == [[0, 1]] * 3


def test_a_small_folder_is_kept_in_memory_and_a_large_one_read_again(tmp_path, monkeypatch):
    write_own(tmp_path, NAMES)
    files = own_folder(tmp_path, (6, 8))
    kept = in_memory(files)
    assert isinstance(kept, DepthArrays)
    assert kept.depth.equal(files.batch(torch.arange(12)).depth)
    monkeypatch.setattr(own, "IN_MEMORY", 12 * 6 * 8 * 8 - 1)
    assert in_memory(files) is files


def test_pairs_that_cannot_be_used_are_skipped_and_listed(tmp_path):
    write_own(tmp_path, ["good", "no_map", "no_reading", "cut", "eight_bit", "other_size", "poem"])
    depth = tmp_path / "depth"
    (depth / "no_map.png").unlink()
    write_png16(depth / "no_reading.png", np.zeros((12, 16)))
    (depth / "cut.png").write_bytes((depth / "cut.png").read_bytes()[:50])
    write_rgb(depth / "eight_bit.png", 12, 16)
    write_png16(depth / "other_size.png", np.ones((12, 17)))
    (tmp_path / "image" / "poem.png").write_text("roses are red")
    files = own_folder(tmp_path, (6, 8))
    assert [record.image.stem for record in files.records] == ["good"]
    reasons = {Path(name).stem: reason for name, reason in files.skipped.samples}
    for name, words in {
        "no_map": "no depth map",
        "no_reading": "no pixel with a reading",
        "cut": "damaged",
        "eight_bit": "16 bits",
        "other_size": "pixel over pixel",
        "poem": "not an image",
    }.items():
        assert words in reasons[name]
        assert "\n" not in reasons[name]


def test_a_folder_of_which_nothing_is_left_says_why(tmp_path):
    write_own(tmp_path, ["a"])
    (tmp_path / "depth" / "a.png").unlink()
    with pytest.raises(DataError, match=r"no usable pair; 1 skipped \(a.png: no depth map"):
        own_folder(tmp_path, (6, 8))
    (tmp_path / "image" / "a.png").unlink()
    with pytest.raises(DataError, match="has no pictures in image/"):
        own_folder(tmp_path, (6, 8))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"no .*depth.json: it says how many metres a count .* is, like \{\"scale\": 0.001\}"),
        ("{scale: 1}", "cannot read .*depth.json"),
        ("[]", "has no key scale"),
        ('{"unit": "mm"}', "has no key scale"),
        ('{"scale": 0}', "scale must be a positive number of metres, got 0"),
        ('{"scale": "1mm"}', "scale must be a positive number of metres, got '1mm'"),
        ('{"scale": true}', "scale must be a positive number"),
        ('{"scale": Infinity}', "scale must be a positive number"),
    ],
)
def test_a_bad_depth_json_is_named_in_one_line(tmp_path, text, message):
    write_own(tmp_path, ["a"])
    path = tmp_path / "depth.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        own_folder(tmp_path, (6, 8))
    assert "\n" not in str(caught.value)


def numpy_file(path: Path, **changes: object) -> Path:
    arrays = {
        "rgb": np.arange(3 * 4 * 6 * 3, dtype=np.uint8).reshape(3, 4, 6, 3),
        "depth": np.full((3, 4, 6), 1500, np.uint16),
        "scale": np.array(0.5),
        "group": np.array(["x", "y", "z"]),
    } | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def test_a_numpy_file_of_counts_or_of_metres_is_read(tmp_path):
    arrays, groups, skipped = own_arrays(numpy_file(tmp_path / "a.npz"), (4, 6))
    assert bool((arrays.depth == 750.0).all())
    assert groups == ["x", "y", "z"]
    assert len(skipped) == 0
    assert arrays.images[1].permute(1, 2, 0).flatten().tolist() == list(range(72, 144))
    metres = np.full((3, 4, 6), 1.25, np.float32)
    metres[2] = np.nan
    arrays, groups, skipped = own_arrays(numpy_file(tmp_path / "b.npz", depth=metres, scale=None), (4, 6))
    assert bool((arrays.depth == 1.25).all())
    assert (groups, skipped.samples) == (["x", "y"], (("2", "no reading"),))
    source = open_depth(str(tmp_path / "a.npz"), (2, 3))
    assert source.train.batch(torch.tensor([0])).images.shape == (1, 3, 2, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rgb": None}, "has no array rgb; it has depth, scale, group"),
        ({"rgb": np.zeros((3, 4, 6, 3))}, r"rgb is float64 \(3, 4, 6, 3\)"),
        ({"rgb": np.zeros((3, 5, 6, 3), np.uint8)}, "they must be uint8"),
        ({"scale": None}, "depth is uint16; give floats in metres, or counts and `scale`"),
        ({"depth": np.zeros((3, 4, 6), np.uint16)}, "no depth map has a reading"),
        ({"depth": np.array([[["a"] * 6] * 4] * 3)}, "depth is <U1"),
    ],
)
def test_a_bad_numpy_file_is_named(tmp_path, changes, message):
    path = numpy_file(tmp_path / "a.npz", **changes)
    with pytest.raises(DataError, match=message) as caught:
        own_arrays(path, (4, 6))
    assert "a.npz" in str(caught.value)


def test_a_file_that_is_no_numpy_archive_is_named(tmp_path):
    path = tmp_path / "a.npz"
    path.write_text(json.dumps({"not": "numpy"}))
    with pytest.raises(DataError, match=r"save it with numpy\.savez"):
        own_arrays(path, (4, 6))
