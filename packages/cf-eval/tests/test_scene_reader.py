"""Pictures drawn by hand are read back: what, where, in which colour, how large."""

import math
import random

import numpy as np
import pytest
import torch
from cf_eval.scene_reader import SceneReader, background_colour, connected_components
from scipy import ndimage

INRADIUS = 1 / 27**0.25  # of the equilateral triangle of area 1
SHAPES = {  # outlines of area 1 around their centroid, v downwards
    "circle": lambda u, v: u**2 + v**2 <= 1 / math.pi,
    "square": lambda u, v: (abs(u) <= 0.5) & (abs(v) <= 0.5),
    "triangle": lambda u, v: (v <= INRADIUS) & (abs(u) * 3**0.5 / 2 - v / 2 <= INRADIUS),
}
PALETTE = {"red": (0.9, 0.1, 0.1), "green": (0.1, 0.7, 0.2), "blue": (0.1, 0.2, 0.9)}
GROUNDS = {"white": (1.0, 1.0, 1.0), "black": (0.05, 0.05, 0.05)}
READER = SceneReader(PALETTE, GROUNDS, SHAPES)
HALF_PIXEL = 0.5


def canvas(size: int = 48, ground: str = "white") -> np.ndarray:
    """(3, size, size) of plain ground, in 0..1."""
    return np.ones((3, size, size)) * np.array(GROUNDS[ground])[:, None, None]


def paint(picture: np.ndarray, shape: str, colour: str, x: float, y: float, area: float) -> None:
    """Fill a shape of `area` pixels around (x, y) in pixels."""
    rows, columns = np.mgrid[: picture.shape[1], : picture.shape[2]] + HALF_PIXEL
    inside = SHAPES[shape]((columns - x) / area**0.5, (rows - y) / area**0.5)
    picture[:, inside] = np.array(PALETTE[colour])[:, None]


def read(picture: np.ndarray, reader: SceneReader = READER):
    return reader(torch.from_numpy(picture)[None])[0]


# ------------------------------------------------------------------------------------- connected components


@pytest.mark.parametrize(("h", "w"), [(1, 1), (1, 9), (7, 5), (16, 16), (23, 31)])
@pytest.mark.parametrize("n_labels", [1, 2, 4])
def test_components_are_those_of_scipy(h, w, n_labels):
    labels = torch.randint(-1, n_labels, (3, h, w), generator=torch.Generator().manual_seed(h * w + n_labels))
    for picture, blobs in zip(labels, connected_components(labels), strict=True):
        expected = set()
        for label in range(n_labels):
            numbered, count = ndimage.label(picture.numpy() == label)  # 4-neighbourhood by default
            expected |= {(label, (numbered == k).tobytes()) for k in range(1, count + 1)}
        found = [(blob.label, blob.mask.numpy().tobytes()) for blob in blobs]
        assert set(found) == expected
        assert len(found) == len(expected)


def test_a_spiral_is_one_component():
    spiral = torch.tensor(
        [
            [1, 1, 1, 1, 1, 1, 1],
            [0, 0, 0, 0, 0, 0, 1],
            [1, 1, 1, 1, 1, 0, 1],
            [1, 0, 0, 0, 1, 0, 1],
            [1, 0, 1, 1, 1, 0, 1],
            [1, 0, 0, 0, 0, 0, 1],
            [1, 1, 1, 1, 1, 1, 1],
        ]
    )
    blobs = connected_components(spiral[None] - 1)[0]
    assert len(blobs) == 1
    assert torch.equal(blobs[0].mask, spiral == 1)


def test_corners_that_touch_do_not_connect_and_neither_do_opposite_edges():
    assert len(connected_components(torch.eye(4, dtype=torch.int64)[None] - 1)[0]) == 4
    assert len(connected_components(torch.tensor([[[0, -1, 0]]]))[0]) == 2


# ------------------------------------------------------------------------------------------- hand-made scenes


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("colour", PALETTE)
@pytest.mark.parametrize("ground", GROUNDS)
def test_a_shape_is_read_back_with_its_colour_place_and_area(shape, colour, ground):
    picture = canvas(48, ground)
    paint(picture, shape, colour, x=17.3, y=29.6, area=300)
    reading = read(picture)
    assert reading.background == ground
    (found,) = reading.objects
    assert (found.shape, found.colour) == (shape, colour)
    assert found.x * 48 == pytest.approx(17.3, abs=HALF_PIXEL)
    assert found.y * 48 == pytest.approx(29.6, abs=HALF_PIXEL)
    assert found.area * 48**2 == pytest.approx(300, rel=0.06)  # the outline runs through ~60 pixels
    assert found.fit > 0.9


def test_a_picture_need_not_be_square():
    picture = np.ones((3, 24, 60))
    paint(picture, "square", "blue", x=45, y=6, area=64)
    (found,) = read(picture).objects
    assert (found.x, found.y) == (pytest.approx(45 / 60), pytest.approx(6 / 24))
    assert found.area == pytest.approx(64 / (24 * 60))


def test_bytes_and_floats_read_alike_and_each_picture_on_its_own():
    first, second = canvas(33), canvas(33, "black")
    paint(first, "circle", "red", 12, 20, 150)
    paint(second, "triangle", "green", 15, 15, 200)
    paint(second, "square", "blue", 26, 27, 60)
    batch = torch.from_numpy(np.stack([first, second]))
    as_bytes = READER((batch * 255).round().to(torch.uint8))
    assert [[(d.shape, d.colour) for d in r.objects] for r in as_bytes] == [
        [("circle", "red")],
        [("triangle", "green"), ("square", "blue")],
    ]
    assert READER(batch) == as_bytes == [read(first), read(second)]


def test_three_of_a_kind_are_three():
    picture = canvas()
    for x, y in ((10, 10), (36, 12), (22, 36)):
        paint(picture, "circle", "green", x, y, 120)
    reading = read(picture)
    assert [(d.shape, d.colour) for d in reading.objects] == [("circle", "green")] * 3
    assert sorted(round(d.x * 48) for d in reading.objects) == [10, 22, 36]


def test_objects_of_different_colours_that_touch_stay_two():
    picture = canvas()
    paint(picture, "square", "red", 16, 24, 256)  # columns 8 to 23
    paint(picture, "square", "blue", 32, 24, 256)  # columns 24 to 39
    assert {(d.shape, d.colour, round(d.x * 48)) for d in read(picture).objects} == {
        ("square", "red", 16),
        ("square", "blue", 32),
    }


def test_shading_and_faint_noise_do_not_change_what_is_seen():
    picture = canvas()
    paint(picture, "triangle", "red", 24, 26, 350)
    rng = np.random.default_rng(0)
    light = np.linspace(0.85, 1.0, 48)[None, :, None]
    noisy = (picture * light + 0.02 * rng.standard_normal(picture.shape)).clip(0, 1)
    (found,) = read(noisy).objects
    assert (found.shape, found.colour) == ("triangle", "red")


# --------------------------------------------------------------------------------------- what is not an object


@pytest.mark.parametrize("seed", range(4))
def test_noise_holds_no_objects(seed):
    noise = np.random.default_rng(seed).random((3, 48, 48))
    assert read(noise).objects == ()


def test_an_empty_picture_holds_no_objects():
    assert read(canvas(20, "black")).objects == ()
    assert read(canvas(20, "black")).background == "black"


def test_specks_are_ignored_and_the_border_between_is_min_area():
    picture = canvas()
    picture[:, 20:24, 20:24] = np.array(PALETTE["red"])[:, None, None]  # 16 pixels of 2304: 0.0069
    assert read(picture).objects == ()
    sharper = SceneReader(PALETTE, GROUNDS, SHAPES, min_area=16 / 2304)
    assert [d.area for d in read(picture, sharper).objects] == [pytest.approx(16 / 2304)]


def test_a_blob_like_no_outline_is_no_object():
    picture = canvas()
    picture[:, 4:44, 22:26] = np.array(PALETTE["blue"])[:, None, None]  # a bar 40 x 4
    assert read(picture).objects == ()
    (bar,) = read(picture, SceneReader(PALETTE, GROUNDS, SHAPES, min_fit=0.0)).objects
    assert bar.fit < 0.4


def test_fit_is_the_intersection_over_the_union_with_the_ideal_outline():
    picture = canvas()
    picture[:, 20:28, 12:36] = np.array(PALETTE["blue"])[:, None, None]  # 24 x 8, area 192
    only_squares = SceneReader(PALETTE, GROUNDS, {"square": SHAPES["square"]}, min_fit=0.0)
    (found,) = read(picture, only_squares).objects  # the ideal: 13.86² = 14 x 14 pixels around the centre
    assert found.fit == pytest.approx(8 * 14 / (192 + 14 * 14 - 8 * 14))


# -------------------------------------------------------------------------------------------------- background


def test_the_ground_is_the_median_of_the_frame_so_an_object_may_reach_over_it():
    picture = canvas(21)
    picture[:, :9, :9] = np.array(PALETTE["red"])[:, None, None]  # 17 of 80 frame pixels
    ground = background_colour(torch.from_numpy(picture).float()[None])
    assert ground.tolist() == [[1.0, 1.0, 1.0]]
    assert read(picture).objects[0].colour == "red"


def test_every_frame_pixel_counts_once():
    """Of 3 x 4 pixels ten are frame; five against five, the lower median is the smaller value."""
    picture = torch.zeros(1, 3, 3, 4)
    frame = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 3), (2, 3), (2, 2), (2, 1), (2, 0), (1, 0)]
    random.Random(0).shuffle(frame)
    for row, column in frame[:5]:
        picture[0, :, row, column] = 1.0
    assert background_colour(picture).tolist() == [[0.0] * 3]
    row, column = frame[5]
    picture[0, :, row, column] = 1.0
    assert background_colour(picture).tolist() == [[1.0] * 3]


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (2, 8, 8, 3)])
def test_anything_but_rgb_batches_is_refused_with_its_shape(shape):
    with pytest.raises(ValueError, match=r"\(b, 3, h, w\)"):
        READER(torch.zeros(shape))
