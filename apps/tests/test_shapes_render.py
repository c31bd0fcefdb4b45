"""What is drawn has the area, the colour and the depth that the scene says."""

import math

import pytest
import torch
from cf_apps.data.shapes_render import AT_ONCE, BULGE, OUTLINES, inside_unit_area, render
from cf_apps.data.shapes_scene import BACKGROUNDS, COLOURS, SHAPES, SIZES, Scenes, draw_scenes

SHAPE, COLOUR, GROUND = list(SHAPES), list(COLOURS), list(BACKGROUNDS)
LEVEL = 1.5 / 255  # rounding to bytes
WHITE = GROUND.index("white")


def scene(*objects: dict, background: int = WHITE) -> Scenes:
    """One scene of up to three objects, given by shape, colour, size, x, y, depth."""
    plain = {"shape": 0, "colour": 0, "size": 1, "x": 0.5, "y": 0.5, "depth": 0.5}
    slots = [plain | it for it in objects] + [plain] * (3 - len(objects))
    column = {key: torch.tensor([[slot[key] for slot in slots]]) for key in plain}
    return Scenes(torch.arange(3)[None] < len(objects), background=torch.tensor([background]), **column)


# ------------------------------------------------------------------------------------------------- outlines


def analytic_area(shape: str, r: float) -> float:
    """A circle of radius r, a square of half side r, a triangle of inradius 0.684 r."""
    return {
        "circle": math.pi * r**2,
        "square": 4 * r**2,
        "triangle": 3 * 3**0.5 * (0.684 * r) ** 2,
    }[shape]


@pytest.mark.parametrize("shape", range(len(SHAPE)))
@pytest.mark.parametrize("size", range(len(SIZES)))
@pytest.mark.parametrize("image_size", [32, 61, 128])
def test_the_antialiased_area_is_the_analytic_one_within_two_percent(shape, size, image_size):
    it = {"shape": shape, "size": size, "x": 0.47, "y": 0.52, "colour": COLOUR.index("blue")}
    image, _ = render(scene(it), image_size, shading=0.0)
    red_of_ground, red_of_ink = 1.0, COLOURS["blue"][0]
    cover = (red_of_ground - image[0, 0].float() / 255) / (red_of_ground - red_of_ink)
    r = list(SIZES.values())[size]
    assert cover.mean() == pytest.approx(analytic_area(SHAPE[shape], r), rel=0.02)


@pytest.mark.parametrize("name", SHAPE)
def test_the_unit_outline_has_area_one_and_its_centroid_at_the_origin(name):
    axis = (torch.arange(2000, dtype=torch.float64) + 0.5) / 500 - 2
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    inside = inside_unit_area(name)(u, v).double()
    cell = (4 / 2000) ** 2
    assert inside.sum() * cell == pytest.approx(1.0, abs=2e-3)
    assert (inside * u).sum() * cell == pytest.approx(0.0, abs=2e-3)
    assert (inside * v).sum() * cell == pytest.approx(0.0, abs=2e-3)


@pytest.mark.parametrize("name", SHAPE)
def test_the_stated_area_and_reach_are_those_of_the_outline(name):
    axis = (torch.arange(3000, dtype=torch.float64) + 0.5) / 1000 - 1.5
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    inside = OUTLINES[name](u, v) <= 0
    stated, pixel = SHAPES[name], 2e-3
    assert inside.sum() * 1e-6 == pytest.approx(stated.area, rel=1e-3)
    assert u[inside].abs().max() == pytest.approx(stated.side, abs=pixel)
    assert -v[inside].min() == pytest.approx(stated.up, abs=pixel)
    assert v[inside].max() == pytest.approx(stated.down, abs=pixel)


@pytest.mark.parametrize("name", SHAPE)
def test_inside_the_outline_the_distance_has_slope_one(name):
    points = torch.randn(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.3
    points.requires_grad_()
    distance = OUTLINES[name](points[:, 0], points[:, 1])
    (slope,) = torch.autograd.grad(distance.sum(), points)
    assert torch.allclose(slope[distance < 0].norm(dim=1), torch.ones(1, dtype=torch.float64))


def test_the_triangle_points_upwards():
    image, _ = render(scene({"shape": SHAPE.index("triangle")}), 64, shading=0.0)
    widths = (image[0, 1] < 128).sum(1)
    rows = widths.nonzero().flatten()
    assert widths[rows[0]] < 6 < widths[rows[-1]]
    assert (widths[rows].diff() >= 0).all()


# ------------------------------------------------------------------------------------------------- colours


@pytest.mark.parametrize("colour", range(len(COLOUR)))
@pytest.mark.parametrize("background", range(len(GROUND)))
def test_without_shading_centre_and_corner_have_the_named_colours(colour, background):
    image, _ = render(scene({"colour": colour}, background=background), 33, shading=0.0)
    centre, corner = image[0, :, 16, 16] / 255, image[0, :, 0, 0] / 255
    assert torch.allclose(centre, torch.tensor(COLOURS[COLOUR[colour]]), atol=LEVEL)
    assert torch.allclose(corner, torch.tensor(BACKGROUNDS[GROUND[background]]), atol=LEVEL)


def test_light_comes_from_the_upper_left_and_fades_with_distance():
    near, far = ({"depth": depth, "colour": COLOUR.index("yellow")} for depth in (0.25, 0.75))
    images, _ = zip(*(render(scene(it), 65) for it in (near, far)), strict=True)
    near_light, far_light = (image[0, 0].float() for image in images)
    assert near_light[28, 28] > near_light[36, 36]
    assert near_light[32, 32] > far_light[32, 32]


def test_an_absent_object_leaves_no_trace():
    image, depth = render(scene(), 17)
    assert (image == 255).all()
    assert (depth == 1).all()


# ------------------------------------------------------------------------------------------------- depth


def test_the_wall_is_at_one_and_objects_bulge_towards_the_camera():
    _, depth = render(scene({"depth": 0.6}), 64)
    assert depth[0, 0, 0] == 1.0
    assert depth[0, 32, 32] == pytest.approx(0.6 - BULGE, abs=0.01)
    on_object = depth[0] < 1
    assert depth[0][on_object].min() >= 0.6 - BULGE
    assert depth[0][on_object].max() <= 0.6


@pytest.mark.parametrize("first_is_nearer", [True, False])
def test_the_nearer_object_is_in_front_whatever_its_slot(first_is_nearer):
    depths = (0.3, 0.7) if first_is_nearer else (0.7, 0.3)
    red = {"colour": COLOUR.index("red"), "x": 0.44, "depth": depths[0]}
    blue = {"colour": COLOUR.index("blue"), "x": 0.56, "depth": depths[1]}
    image, depth = render(scene(red, blue), 64, shading=0.0)
    in_front = "red" if first_is_nearer else "blue"
    assert torch.allclose(image[0, :, 32, 32] / 255, torch.tensor(COLOURS[in_front]), atol=LEVEL)
    assert depth[0, 32, 32] <= 0.3


def test_depth_is_that_of_the_nearest_object_at_every_pixel():
    scenes = draw_scenes(64, torch.Generator().manual_seed(1), overlap=1.0)
    _, together = render(scenes, 48)
    alone = []
    for slot in range(3):
        present = scenes.present & (torch.arange(3) == slot)
        only = Scenes(
            present,
            scenes.shape,
            scenes.colour,
            scenes.size,
            scenes.x,
            scenes.y,
            scenes.depth,
            scenes.background,
        )
        alone.append(render(only, 48)[1])
    front = torch.stack(alone).amin(0)
    apart = (together - front).abs() > BULGE  # two bulges may cut each other only where depths are alike
    assert not apart.any()


# ------------------------------------------------------------------------------------------------- as a whole


def test_a_scene_looks_the_same_in_any_company():
    scenes = draw_scenes(11, torch.Generator().manual_seed(2))
    images, depth = render(scenes, 32)
    for row in (0, 7, 10):
        image, own_depth = render(scenes[row : row + 1], 32)
        assert torch.equal(image[0], images[row])
        assert torch.equal(own_depth[0], depth[row])


def test_a_larger_picture_shows_the_same_scene():
    scenes = draw_scenes(16, torch.Generator().manual_seed(3))
    small, large = (render(scenes, size)[0].float() for size in (32, 128))
    shrunk = torch.nn.functional.avg_pool2d(large, 4)
    assert (shrunk - small).abs().mean() < 1.5  # of 255: only edges differ


def test_a_picture_too_small_for_shapes_is_refused():
    with pytest.raises(ValueError, match="image_size 15 is too small"):
        render(scene(), 15)


@pytest.mark.parametrize("count", [0, 1, AT_ONCE, AT_ONCE + 1])
def test_a_scene_looks_the_same_alone_and_wherever_it_stands_among_others(count):
    scenes = draw_scenes(AT_ONCE + 1, torch.Generator().manual_seed(0))[:count]
    images, depth = render(scenes, 16)
    assert images.shape == (count, 3, 16, 16)
    for i in range(count):
        alone = render(scenes[i : i + 1], 16)
        assert torch.equal(images[i], alone[0][0])
        assert torch.equal(depth[i], alone[1][0])
