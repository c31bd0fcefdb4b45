"""Loaders of public depth sets on a few files in the real layout, and what they make of bad ones."""

import importlib.util
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from cf_apps.data.captioned import DataError
from cf_apps.data.depth_sets.by_name import open_depth
from cf_apps.data.depth_sets.files import DepthFiles
from cf_apps.data.depth_sets.hypersim import FOCAL, hypersim, planar_depth
from cf_apps.data.depth_sets.kitti import KB_SIZE, TEST_LIST, TRAIN_LIST, kitti
from cf_apps.data.depth_sets.nyu import TEST_LIST as NYU_TEST
from cf_apps.data.depth_sets.nyu import TRAIN_LIST as NYU_TRAIN
from cf_apps.data.depth_sets.nyu import nyu
from cf_apps.data.depth_sets.virtual_kitti import virtual_kitti
from cf_apps.data.depth_sets.zero_shot import ETH3D_SIZE, LAYOUTS, zero_shot_test, zero_shot_tests
from cf_eval.depth.protocols import PROTOCOLS
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from depth_layouts import (
    DRIVES,
    HYPERSIM_HEADER,
    KITTI_RAW,
    kitti_counts,
    rng,
    write_hypersim_prepared,
    write_hypersim_published,
    write_kitti,
    write_lines,
    write_nyu,
    write_png16,
    write_rgb,
    write_virtual_kitti,
)

needs_h5py = pytest.mark.skipif(
    importlib.util.find_spec("h5py") is None, reason="h5py is not installed; pip install h5py"
)
BOTH = torch.arange(2)


def one_line(message: str) -> bool:
    return "\n" not in message


# KITTI


def test_kitti_is_read_in_the_benchmark_s_window_in_metres(tmp_path):
    write_kitti(tmp_path, TRAIN_LIST)
    data = kitti(tmp_path)
    pair = data.pair(0)
    assert pair.depth.shape == pair.image.shape[1:] == KB_SIZE
    top, left = KITTI_RAW[0] - 352, (KITTI_RAW[1] - 1216) // 2
    window = kitti_counts(*KITTI_RAW)[top:, left : left + 1216]
    np.testing.assert_array_equal(pair.depth.numpy(), window / np.float32(256))
    np.testing.assert_array_equal(pair.valid.numpy(), window > 0)
    assert pair.image[:, :, 0].eq(90).all()
    assert pair.image[:, :, -1].eq(190).all()


def test_kitti_lines_without_ground_truth_are_left_out_and_counted(tmp_path):
    write_kitti(tmp_path, TEST_LIST)
    data = kitti(tmp_path, TEST_LIST)
    assert len(data) == 3
    assert len(data.skipped) == 1
    assert data.skipped.samples[0][0].startswith("line 2: 2011_09_26/2011_09_26_drive_0009_sync")
    assert [record.group for record in data.records] == list(DRIVES)


def test_kitti_in_whole_frames_and_with_everything_in_one_folder(tmp_path):
    write_kitti(tmp_path / "a", TEST_LIST)
    assert kitti(tmp_path / "a", TEST_LIST, frame="whole").pair(1).depth.shape == KITTI_RAW
    merged = tmp_path / "b"
    merged.mkdir()
    (tmp_path / "a" / "raw" / "2011_09_26").rename(merged / "2011_09_26")
    (tmp_path / "a" / "depth_annotated" / "train" / DRIVES[0]).rename(merged / DRIVES[0])
    lines = (tmp_path / "a" / TEST_LIST).read_text().splitlines()
    write_lines(merged / TEST_LIST, lines[:1])
    assert kitti(merged, TEST_LIST).pair(0).valid.any()
    with pytest.raises(ValueError, match="unknown frame 'garg'; known: kb, whole"):
        kitti(merged, frame="garg")


def test_depth_beyond_the_cap_of_80_metres_is_no_reading(tmp_path):
    write_kitti(tmp_path, TRAIN_LIST)
    record = kitti(tmp_path).records[0]
    counts = np.full(KITTI_RAW, 256 * 79)
    counts[-1, 600:620] = 256 * 80
    write_png16(record.depth, counts)
    assert int((~kitti(tmp_path).pair(0).valid).sum()) == 20


def test_kitti_batches_come_at_the_model_s_size(tmp_path):
    write_kitti(tmp_path, TRAIN_LIST)
    batch = kitti(tmp_path, size=(44, 152)).batch(torch.tensor([2, 0]))
    assert batch.images.shape == (2, 3, 44, 152)
    assert batch.depth.shape == batch.valid.shape == (2, 44, 152)


def test_kitti_by_name_holds_out_drives_and_reports_on_the_published_list(tmp_path):
    write_kitti(tmp_path, TRAIN_LIST)
    write_kitti(tmp_path, TEST_LIST)
    source = open_depth(f"kitti:{tmp_path}", (44, 152))
    assert len(source.train) + len(source.val["kitti"].pairs) == 3
    assert len(source.val["kitti"].pairs) >= 1
    assert len(source.test["kitti"].pairs) == 3
    assert source.test["kitti"].protocol == PROTOCOLS["kitti_adabins"]
    assert len(source.skipped) == 2
    assert source.name == f"kitti:{tmp_path}"


# NYU


def test_nyu_is_read_in_metres_with_slashes_and_without(tmp_path):
    write_nyu(tmp_path, NYU_TRAIN, "sync", slash="/")
    write_nyu(tmp_path, NYU_TEST, "official_splits/test")
    for split in (NYU_TRAIN, NYU_TEST):
        pair = nyu(tmp_path, split).pair(1)
        np.testing.assert_allclose(pair.depth[100].numpy(), np.linspace(1, 2, 640), atol=0.0011)
        assert int((~pair.valid).sum()) == 100 + 1  # the corner without a reading, and the pixel at 12 m
    source = open_depth(f"nyu:{tmp_path}", (48, 64))
    assert source.train.batch(torch.tensor([0])).images.shape == (1, 3, 48, 64)
    assert source.test["nyu"].protocol == PROTOCOLS["nyu"]


# Virtual KITTI


def test_virtual_kitti_s_sky_and_what_is_beyond_80_metres_are_no_readings(tmp_path):
    counts = write_virtual_kitti(tmp_path)
    data = virtual_kitti(tmp_path)
    assert len(data) == 2
    pair = data.pair(0)
    assert pair.depth.shape == KB_SIZE
    below = torch.from_numpy(counts[KITTI_RAW[0] - 352 :, :1216] == 1234)
    assert pair.valid.equal(below)
    assert bool((pair.depth[pair.valid] == torch.tensor(12.34)).all())


def test_a_folder_without_virtual_kitti_says_what_belongs_there(tmp_path):
    with pytest.raises(DataError, match=r"holds no Scene\*.*unpack"):
        virtual_kitti(tmp_path)


# Hypersim


def test_planar_depth_of_a_wall_across_the_view_is_the_same_everywhere():
    h, w, z = 77, 103, 3.25
    f = FOCAL * w / 1024
    rays = [[math.hypot(f, (j - (w - 1) / 2), (i - (h - 1) / 2)) / f for j in range(w)] for i in range(h)]
    distance = z * torch.tensor(rays, dtype=torch.float64)
    torch.testing.assert_close(planar_depth(distance), torch.full_like(distance, z), rtol=1e-12, atol=0)
    assert distance.max() > 1.1 * z  # the two are far from the same at the corners


def test_planar_depth_of_a_point_is_its_third_coordinate():
    h, w, f = 6, 8, 5.0
    i, j = 1, 6
    point = 2.5 * torch.tensor([j - 3.5, i - 2.5, f], dtype=torch.float64)
    distance = torch.zeros(h, w, dtype=torch.float64)
    distance[i, j] = point.norm()
    assert abs(planar_depth(distance, f)[i, j] - point[2]) < 1e-12


def test_hypersim_as_marigold_prepares_it_is_read_in_metres(tmp_path):
    write_hypersim_prepared(tmp_path)
    data = hypersim(tmp_path)
    pair = data.pair(1)
    assert bool((pair.depth == 2.5).all())
    assert data.records[1].group == "ai_001_002"


@needs_h5py
def test_hypersim_as_published_becomes_planar_depth(tmp_path):
    distance = 1 + 4 * rng().random((48, 64))
    distance[0, 0] = np.nan
    write_hypersim_published(tmp_path, distance)
    data = hypersim(tmp_path)
    assert len(data) == 1
    pair = data.pair(0)
    assert not pair.valid[0, 0]
    assert int(pair.valid.sum()) == 48 * 64 - 1
    expected = planar_depth(torch.from_numpy(distance.astype(np.float16)).float())
    assert pair.depth[pair.valid].equal(expected[pair.valid])
    record = data.records[0]
    record.depth.write_bytes(record.depth.read_bytes()[:600])
    with pytest.raises(DataError, match=r"cannot read .*depth_meters.hdf5 as Hypersim's hdf5"):
        data.pair(0)


def test_hypersim_without_h5py_says_what_to_install(tmp_path, monkeypatch):
    image = tmp_path / "ai_001_001/images/scene_cam_00_final_preview/frame.0007.tonemap.jpg"
    write_rgb(image, 8, 8)
    depth = tmp_path / "ai_001_001/images/scene_cam_00_geometry_hdf5/frame.0007.depth_meters.hdf5"
    depth.parent.mkdir(parents=True)
    depth.write_bytes(b"hdf5")
    rows = [HYPERSIM_HEADER, "ai_001_001,cam_00,7,True,,train"]
    write_lines(tmp_path / "metadata_images_split_scene_v1.csv", rows)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(
        DataError, match=r"hdf5, which the package h5py reads: pip install 'cf-apps\[hypersim\]'"
    ):
        hypersim(tmp_path)


def test_a_hypersim_table_that_is_not_the_published_one_is_refused(tmp_path):
    table = tmp_path / "metadata_images_split_scene_v1.csv"
    write_lines(table, ["scene,frame", "ai_001_001,3"])
    with pytest.raises(DataError, match=r"has no column scene_name, camera_name.*anew"):
        hypersim(tmp_path)
    write_lines(table, [HYPERSIM_HEADER, "ai_001_001,cam_00,7"])
    with pytest.raises(DataError, match="line 2: too few fields"):
        hypersim(tmp_path)
    write_lines(table, [HYPERSIM_HEADER])
    with pytest.raises(DataError, match="no released picture of split 'train'"):
        hypersim(tmp_path)
    table.unlink()
    with pytest.raises(DataError, match=r"has neither filename_list_train_filtered.txt nor metadata"):
        hypersim(tmp_path)


# the five test sets


def write_diode(folder: Path, h: int = 6, w: int = 9) -> tuple[np.ndarray, np.ndarray]:
    depth = rng(1).uniform(0.1, 400, (h, w, 1)).astype(np.float32)
    mask = (rng(2).random((h, w)) < 0.7).astype(np.float32)
    write_rgb(folder / "indoors" / "a.png", h, w)
    np.save(folder / "indoors" / "a_depth.npy", depth)
    np.save(folder / "indoors" / "a_depth_mask.npy", mask)
    names = "indoors/a.png indoors/a_depth.npy indoors/a_depth_mask.npy"
    write_lines(folder / LAYOUTS["diode"].split, [names])
    return depth[..., 0], mask


def test_diode_counts_the_pixels_of_its_own_mask_whatever_their_depth(tmp_path):
    depth, mask = write_diode(tmp_path / "diode")
    pair = zero_shot_test(tmp_path, "diode", (6, 9)).pair(0)
    np.testing.assert_array_equal(pair.depth.numpy(), depth)
    np.testing.assert_array_equal(pair.valid.numpy(), mask > 0)


def test_eth3d_is_raw_float32_and_infinity_is_no_reading(tmp_path):
    from functools import partial

    from cf_apps.data.depth_sets.zero_shot import _eth3d

    assert ETH3D_SIZE == (4032, 6048)
    folder = tmp_path / "eth3d"
    write_rgb(folder / "rgb/hall/DSC_1.JPG", 5, 7)
    values = rng(3).uniform(1, 200, (5, 7)).astype("<f4")
    values[2, 3] = np.inf
    (folder / "depth").mkdir()
    (folder / "depth/DSC_1").write_bytes(values.tobytes())
    write_lines(folder / LAYOUTS["eth3d"].split, ["rgb/hall/DSC_1.JPG depth/DSC_1"])
    files = zero_shot_test(tmp_path, "eth3d", (5, 7))
    with pytest.raises(DataError, match=r"holds 140 bytes; 4032 x 6048 depths in float32 are 97,542,144"):
        files.pair(0)
    pair = partial(_eth3d, rule=PROTOCOLS["eth3d_marigold"], size=(5, 7))(files.records[0])
    assert int((~pair.valid).sum()) == 1
    assert pair.depth[2, 3] == 0
    np.testing.assert_array_equal(pair.depth[pair.valid].numpy(), values[np.isfinite(values)])


def test_scannet_s_larger_pictures_are_brought_to_the_depth_map(tmp_path):
    folder = tmp_path / "scannet"
    write_rgb(folder / "scene0000_00/color/000000.jpg", 97, 130)
    write_png16(folder / "scene0000_00/depth/000000.png", np.full((48, 64), 1500))
    names = "scene0000_00/color/000000.jpg scene0000_00/depth/000000.png"
    write_lines(folder / LAYOUTS["scannet"].split, [names])
    pair = zero_shot_test(tmp_path, "scannet", (48, 64)).pair(0)
    assert pair.image.shape == (3, 48, 64)
    assert bool((pair.depth == 1.5).all())


def test_the_test_sets_that_are_there_are_found(tmp_path):
    write_diode(tmp_path / "diode")
    write_kitti(tmp_path / "kitti", TEST_LIST)
    found = zero_shot_tests(tmp_path, (22, 76))
    assert list(found) == ["kitti", "diode"]
    assert (len(found["kitti"]), len(found["kitti"].skipped)) == (3, 1)
    with pytest.raises(DataError, match="has none of the folders kitti, nyu, eth3d, scannet, diode"):
        zero_shot_tests(tmp_path / "kitti", (22, 76))
    with pytest.raises(ValueError, match="unknown zero-shot set 'sintel'"):
        zero_shot_test(tmp_path, "sintel", (22, 76))


def test_zero_shot_by_name_mixes_rooms_and_streets_nine_to_one(tmp_path):
    write_hypersim_prepared(tmp_path / "hypersim")
    write_virtual_kitti(tmp_path / "vkitti")
    write_diode(tmp_path / "diode")
    source = open_depth(f"zero-shot:{tmp_path}", (24, 32))
    batch = source.train.batch(torch.arange(10))
    rooms = [bool((depth == 2.5).all()) for depth in batch.depth]
    assert rooms == [True] * 9 + [False]
    assert source.test["diode"].protocol == PROTOCOLS["diode_marigold"]
    assert list(source.val) == ["hypersim"]


# bad files: one line that names the file and the remedy


def _png8(path: Path) -> None:
    Image.fromarray(np.full(KITTI_RAW, 7, np.uint8)).save(path)


def _colour(path: Path) -> None:
    Image.fromarray(np.zeros((*KITTI_RAW, 3), np.uint8)).save(path)


def _small(path: Path) -> None:
    write_png16(path, kitti_counts(100, 1242))


def _other_size(path: Path) -> None:
    write_png16(path, kitti_counts(376, 1300))


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _words(path: Path) -> None:
    path.write_text("not a picture")


BAD_DEPTH: list[tuple[Callable[[Path], None], str]] = [
    (_png8, "is a depth map of mode L; it must be a grey PNG of 16 bits, so export it again"),
    (_colour, "is a depth map of mode RGB; it must be a grey PNG of 16 bits"),
    (_small, "is 100 x 1242; KITTI's pictures hold the benchmark's window of 352 x 1216, so copy it anew"),
    (_truncated, "as a depth map: .*damaged, so copy it anew"),
    (_empty, "as a depth map: .*damaged, so copy it anew"),
    (_words, "as a depth map: .*damaged, so copy it anew"),
    (Path.unlink, "no such file: .*incomplete, so copy it anew"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD_DEPTH)
def test_a_bad_depth_map_is_named_in_one_line_with_the_remedy(tmp_path, spoil, message):
    write_kitti(tmp_path, TRAIN_LIST)
    data = kitti(tmp_path)
    bad = data.records[1].depth
    spoil(bad)
    with pytest.raises(DataError, match=message) as caught:
        data.batch(torch.tensor([0, 1]))
    assert bad.name in str(caught.value)
    assert one_line(str(caught.value))
    data.batch(torch.tensor([0, 2]))  # the others are as good as before


def test_pictures_and_depth_maps_of_different_sizes_are_refused(tmp_path):
    write_kitti(tmp_path, TRAIN_LIST)
    data = kitti(tmp_path, frame="whole")
    _other_size(data.records[0].depth)
    with pytest.raises(
        DataError, match=r"is 375 x 1242, its depth map .* 376 x 1300; they must lie pixel over"
    ):
        data.pair(0)


def test_a_truncated_picture_is_named(tmp_path):
    write_nyu(tmp_path, NYU_TRAIN, "sync")
    data = nyu(tmp_path)
    _truncated(data.records[0].image)
    with pytest.raises(DataError, match=r"rgb_00000.jpg: damaged or truncated"):
        data.batch(BOTH)


def test_depth_without_any_reading_is_refused_in_training_and_left_to_the_score_in_evaluation(tmp_path):
    write_nyu(tmp_path, NYU_TRAIN, "sync")
    data = nyu(tmp_path)
    write_png16(data.records[1].depth, np.zeros((480, 640)))
    with pytest.raises(DataError, match=r"sync_depth_00001.png has no pixel with a reading; take it out"):
        data.batch(BOTH)
    assert not data.pair(1).valid.any()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "the split list .* is empty; put the published one in its place"),
        (["", "   "], "the split list .* is empty"),
        (["a/b.png"], r"line 1: 1 fields where 2 belong \('a/b.png'\); copy the list anew"),
        (["a/b.png None 721.5"], "every line of .* has None for its depth map"),
        (["a/b.png c/d.png 1"], "2 of the 2 files that .* names are missing, the first is .*b.png"),
    ],
)
def test_a_bad_split_list_is_named_in_one_line(tmp_path, lines, message):
    write_lines(tmp_path / TRAIN_LIST, lines)
    with pytest.raises(DataError, match=message) as caught:
        kitti(tmp_path)
    assert TRAIN_LIST in str(caught.value)
    assert one_line(str(caught.value))


def test_a_missing_split_list_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read the split list .*No such file.*put it there"):
        kitti(tmp_path)
    with pytest.raises(DataError, match="cannot read the split list"):
        open_depth(f"nyu:{tmp_path}", (48, 64))


def test_diode_s_bad_files_are_named(tmp_path):
    folder = tmp_path / "diode"
    write_diode(folder)

    def pair() -> object:
        return zero_shot_test(tmp_path, "diode", (6, 9)).pair(0)

    np.save(folder / "indoors/a_depth_mask.npy", np.ones((6, 8)))
    with pytest.raises(DataError, match=r"a_depth_mask.npy is \(6, 8\), its depth map \(6, 9\)"):
        pair()
    np.save(folder / "indoors/a_depth.npy", np.ones((6, 9, 3)))
    with pytest.raises(DataError, match=r"a_depth.npy holds an array of shape \(6, 9, 3\)"):
        pair()
    (folder / "indoors/a_depth.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match=r"cannot read .*a_depth.npy as a numpy file"):
        pair()
    write_lines(folder / LAYOUTS["diode"].split, ["indoors/a.png indoors/a_depth.npy"])
    with pytest.raises(DataError, match="2 fields where 3 belong"):
        pair()


def test_a_set_of_files_can_be_cut_down(tmp_path):
    write_kitti(tmp_path, TRAIN_LIST)
    data = kitti(tmp_path)
    part = data.subset(torch.tensor([2, 0]), "part")
    assert isinstance(part, DepthFiles)
    assert [record.group for record in part.records] == [DRIVES[2], DRIVES[0]]
