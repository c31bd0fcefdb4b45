"""Files of depth, read back by plain means."""

import math
import struct

import numpy as np
import pytest
import torch
from cf_apps.depth.outputs import coloured, focal_of, save_cloud, save_png16, scale_of, side_by_side, span
from cf_apps.engine.errors import ConfigError, RunError
from PIL import Image


def picture(h: int, w: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, h, w), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def depth(h: int, w: int) -> torch.Tensor:
    return 1 + 8 * torch.rand(h, w, generator=torch.Generator().manual_seed(1))


def test_a_16_bit_png_holds_depth_to_half_a_count(tmp_path):
    truth = depth(7, 11)
    truth[0, 0] = 0.0  # counts as 1: 0 would say 'no reading'
    path = save_png16(truth, 0.001, tmp_path / "new" / "a.png")
    with Image.open(path) as file:
        assert file.mode.startswith("I")
        counts = np.asarray(file).astype(np.int64)
    assert counts[0, 0] == 1
    assert np.abs(counts * 0.001 - truth.numpy()).flatten()[1:].max() <= 0.0005 + 1e-6


@pytest.mark.parametrize(
    ("far", "scale"), [(1.0, 1e-4), (6.5, 1e-4), (6.6, 1e-3), (10.0, 1e-3), (65.0, 1e-3), (80.0, 1e-2)]
)
def test_the_scale_of_a_png_is_the_smallest_power_of_ten_that_holds_the_farthest(far, scale):
    assert math.isclose(scale_of(far), scale)
    assert far / scale_of(far) <= 65535


def read_ply(path) -> tuple[str, list[tuple]]:
    """Header and vertices, by struct."""
    head, _, body = path.read_bytes().partition(b"end_header\n")
    return head.decode("ascii"), list(struct.iter_unpack("<fffBBB", body))


def test_every_point_of_the_cloud_projects_back_onto_its_pixel(tmp_path):
    h, w, f = 5, 8, 9.5
    z, rgb = depth(h, w), picture(h, w)
    header, points = read_ply(save_cloud(rgb, z, f, tmp_path / "a.ply", "a test"))
    assert header.startswith("ply\nformat binary_little_endian 1.0\ncomment a test\n")
    assert f"element vertex {h * w}\n" in header
    names = [line.split()[1:] for line in header.splitlines() if line.startswith("property")]
    assert names == [["float", axis] for axis in "xyz"] + [["uchar", c] for c in ("red", "green", "blue")]
    assert len(points) == h * w
    for k, (x, y, depth_here, *colour) in enumerate(points):
        i, j = divmod(k, w)
        assert math.isclose(depth_here, z[i, j], rel_tol=1e-6)
        assert math.isclose(f * x / depth_here + w / 2, j + 0.5, rel_tol=1e-5)
        assert math.isclose(f * y / depth_here + h / 2, i + 0.5, rel_tol=1e-5)
        assert colour == rgb[:, i, j].tolist()


def test_a_cloud_of_a_large_picture_takes_every_second_pixel(tmp_path):
    z, rgb = depth(9, 8), picture(9, 8)
    _, points = read_ply(save_cloud(rgb, z, 5.0, tmp_path / "a.ply", "a", most=20))
    assert len(points) == 5 * 4
    assert points[5][2] == z[2, 2].item()
    assert list(points[5][3:]) == rgb[:, 2, 2].tolist()


def test_the_default_focal_length_sees_60_degrees():
    assert math.isclose(math.degrees(2 * math.atan(500 / focal_of(1000))), 60)


@pytest.mark.parametrize("focal", [0.0, -3.0, math.inf, math.nan])
def test_a_focal_length_that_is_none_is_refused(tmp_path, focal):
    with pytest.raises(ConfigError, match="focal length must be a positive number of pixels"):
        save_cloud(picture(2, 2), depth(2, 2), focal, tmp_path / "a.ply", "a")


def test_near_is_red_far_is_blue_and_holes_are_grey():
    plane = torch.tensor([[1.0, 3.0, math.nan]])
    colours = coloured(plane, 1.0, 3.0)
    near, far, hole = colours[:, 0, 0], colours[:, 0, 1], colours[:, 0, 2]
    assert near.argmax() == 0
    assert far.argmax() == 2
    assert hole.tolist() == [0.5] * 3
    assert bool(coloured(torch.full((2, 2), 5.0), 5.0, 5.0).isfinite().all())


def test_the_span_of_a_map_leaves_four_in_a_hundred_out():
    plane = torch.arange(101.0).reshape(1, 101)
    assert span(torch.cat([plane, torch.full((1, 101), math.nan)])) == (2.0, 98.0)
    assert span(torch.full((2, 2), math.nan)) == (0.0, 1.0)


@pytest.mark.parametrize(("h", "w"), [(1, 1), (3, 700), (40, 30)])
def test_side_by_side_of_any_size(h, w):
    image = side_by_side(picture(h, w), depth(h, w), "name", "m")
    assert image.size[0] >= 2 * min(w, 512)


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=r"cannot write .*a\.png: .*; choose another --out"):
        save_png16(depth(2, 2), 0.001, tmp_path / "file" / "a.png")
