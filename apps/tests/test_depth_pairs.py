"""Depth pairs in memory and from scenes."""

import pytest
import torch
from cf_apps.data.captioned import DataError
from cf_apps.data.depth_pairs import (
    DepthArrays,
    DepthPair,
    DepthPairs,
    Foreground,
    Mirrored,
    ShapesDepth,
    foreground,
)
from cf_apps.data.depth_sets.by_name import open_depth
from cf_apps.data.shapes_render import BULGE, render
from cf_apps.data.shapes_scene import draw_scenes


def arrays(n: int = 5, h: int = 3, w: int = 7) -> DepthArrays:
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 3, h, w), generator=g, dtype=torch.uint8)
    depth = 1 + torch.rand(n, h, w, generator=g)
    return DepthArrays(images, depth, torch.rand(n, h, w, generator=g) < 0.8, "toy")


def test_shapes_hide_one_another_and_tell_every_pixel_s_depth():
    data = ShapesDepth.drawn(64, 33, seed=5)
    batch = data.batch(torch.arange(64))
    assert isinstance(data, DepthPairs)
    assert batch.images.shape == (64, 3, 33, 33)
    assert bool(batch.valid.all())
    apart = render(draw_scenes(512, torch.Generator().manual_seed(1)), 33)[1]
    together = render(draw_scenes(512, torch.Generator().manual_seed(1), overlap=1.0), 33)[1]
    assert (together < 1).float().mean() < (apart < 1).float().mean()  # what is hidden is not seen twice
    assert data.pair(7).depth.equal(batch.depth[7])
    assert data.pair(7).image.equal(batch.images[7])


def test_foreground_is_everything_nearer_than_the_wall():
    data = ShapesDepth.drawn(64, 33, seed=5)
    batch = data.batch(torch.arange(64))
    objects = Foreground(data).batch(torch.arange(64))
    assert objects.valid.equal(foreground(batch.depth))
    assert bool((batch.depth[~objects.valid] == 1).all())
    inside = batch.depth[objects.valid]
    assert inside.min() >= 0.25 - BULGE - 1e-3
    assert inside.max() <= 0.75 + 1e-3
    assert Foreground(data).pair(3).valid.equal(objects.valid[3])


def test_the_splits_of_shapes_share_no_scene():
    source = open_depth("shapes", (16, 16), seed=3)
    parts = [source.train, *(s.pairs for half in (source.val, source.test) for s in half.values())]
    sets = [{p.tobytes() for p in part.batch(torch.arange(200)).images.numpy()} for part in parts]
    assert all(len(part) > 190 for part in sets)
    assert sets[0].isdisjoint(sets[1] | sets[2])
    assert sets[1].isdisjoint(sets[2])
    again = open_depth("shapes", (16, 16), seed=3).train.batch(torch.arange(9))
    assert again.images.equal(source.train.batch(torch.arange(9)).images)


def test_shapes_are_square():
    with pytest.raises(DataError, match="square, got 16 x 32"):
        open_depth("shapes", (16, 32))


def test_a_name_that_means_nothing_lists_what_there_is():
    with pytest.raises(DataError, match=r"no such depth data: nowhere; name shapes, kitti:FOLDER.*npz"):
        open_depth("nowhere", (16, 16))


def test_a_picture_without_any_known_depth_is_refused():
    a = arrays()
    empty = a.valid.clone()
    empty[3] = False
    with pytest.raises(DataError, match="toy: depth map 3 has no pixel with a reading"):
        DepthArrays(a.images, a.depth, empty, "toy")


def test_mirrored_pairs_are_flipped_whole_at_random_and_never_without_a_generator():
    data = arrays(40)
    every = torch.arange(40)
    assert Mirrored(data).batch(every).images.equal(data.images)
    batch = Mirrored(data).batch(every, torch.Generator().manual_seed(0))
    flipped = (batch.images == data.images.flip(-1)).flatten(1).all(1)
    assert 10 <= int(flipped.sum()) <= 30
    for x, y in ((batch.images, data.images), (batch.depth, data.depth), (batch.valid, data.valid)):
        assert x[flipped].equal(y[flipped].flip(-1))
        assert x[~flipped].equal(y[~flipped])


def test_resizing_a_depth_map_mixes_no_depths_and_keeps_holes_where_they_are():
    depth = torch.where(torch.arange(12) < 5, 1.0, 9.0).expand(8, 12).clone()
    valid = torch.ones(8, 12, dtype=torch.bool)
    valid[:4] = False
    pair = DepthPair(torch.zeros(3, 8, 12, dtype=torch.uint8), depth, valid)
    for h, w in ((4, 6), (5, 9), (16, 24), (17, 31)):
        small = pair.resized(h, w)
        assert small.image.shape == (3, h, w)
        assert set(small.depth.unique().tolist()) == {1.0, 9.0}
        # the centre of row i lies in row floor((i + 1/2) 8 / h) of the original
        rows = [int((i + 0.5) * 8 / h) >= 4 for i in range(h)]
        assert small.valid.equal(torch.tensor(rows)[:, None].expand(h, w))
    assert pair.resized(8, 12) is pair
