"""Draw scenes: antialiased pictures and their exact depth maps, many at a time."""

from collections.abc import Callable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cf_apps.data.captioned import DataError
from cf_apps.data.shapes_scene import (
    BACKGROUNDS,
    COLOURS,
    MAX_OBJECTS,
    SHAPES,
    TRIANGLE_INRADIUS,
    Scenes,
    radius,
)

AT_ONCE = 64  # scenes: their pictures stay in the processor's cache
BULGE = 0.06  # how far a shape's middle stands out towards the camera, in depth units


def circle(u: Tensor, v: Tensor) -> Tensor:
    """Signed distance to the unit circle; negative inside."""
    return torch.hypot(u, v) - 1.0


def square(u: Tensor, v: Tensor) -> Tensor:
    """Signed distance (exact inside) to the upright square."""
    return torch.maximum(u.abs(), v.abs()) - SHAPES["square"].side


def triangle(u: Tensor, v: Tensor) -> Tensor:
    """Signed distance (exact inside) to the upward equilateral triangle with its centroid at the origin."""
    slanted = u.abs() * (3**0.5 / 2) - v * 0.5
    return torch.maximum(slanted, v) - TRIANGLE_INRADIUS


OUTLINES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "circle": circle,
    "square": square,
    "triangle": triangle,
}


def inside_unit_area(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The outline scaled to area 1, as the inside test that a scene reader wants."""
    outline, scale = OUTLINES[name], SHAPES[name].area ** 0.5
    return lambda u, v: outline(u * scale, v * scale) <= 0


def render(
    scenes: Scenes, image_size: int, *, shading: float = 0.12
) -> tuple[UInt8[Tensor, "n 3 h w"], Float[Tensor, "n h w"]]:
    """Pictures (n, 3, h, w) uint8 and depth maps (n, h, w) in 0..1, nearer objects in front.

    shading: how strongly light from the upper left models each object and distance dims it; 0 is flat colour.
    """
    if image_size < 16:
        raise DataError(f"image_size {image_size} is too small to show shapes; use 16 or more")
    parts = [
        _render(scenes[i : i + AT_ONCE], image_size, shading) for i in range(0, max(len(scenes), 1), AT_ONCE)
    ]
    pictures, depths = zip(*parts, strict=True)
    return torch.cat(pictures), torch.cat(depths)


def _render(scenes: Scenes, image_size: int, shading: float) -> tuple[Tensor, Tensor]:
    axis = (torch.arange(image_size) + 0.5) / image_size
    n = len(scenes)
    wall = torch.tensor(list(BACKGROUNDS.values()))[scenes.background]  # (n, 3)
    picture = wall[:, :, None, None].expand(n, 3, image_size, image_size).clone()
    depth = torch.ones(n, image_size, image_size)
    palette = torch.tensor(list(COLOURS.values()))
    for slot in _back_to_front(scenes):
        row = torch.arange(n)
        r = radius(scenes.size)[row, slot][:, None, None]
        u = (axis[None, None, :] - scenes.x[row, slot][:, None, None]) / r
        v = (axis[None, :, None] - scenes.y[row, slot][:, None, None]) / r
        distance = _outline_of(scenes.shape[row, slot], u, v)
        cover = (0.5 - distance * r * image_size).clamp(0, 1) * scenes.present[row, slot][:, None, None]
        z = scenes.depth[row, slot][:, None, None]
        light = 1 - shading * (0.45 * (u + v).clamp(-1.5, 1.5) / 1.5 + (z - 0.25))
        ink = (palette[scenes.colour[row, slot]][:, :, None, None] * light[:, None]).clamp(0, 1)
        picture += cover[:, None] * (ink - picture)
        depth = torch.where(cover >= 0.5, z - BULGE * (-distance).clamp(0, 1), depth)
    return (picture * 255).round().to(torch.uint8), depth


def _back_to_front(scenes: Scenes) -> list[Tensor]:
    order = scenes.depth.argsort(1, descending=True)
    return [order[:, i] for i in range(MAX_OBJECTS)]


def _outline_of(shape: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Signed distance to each scene's own outline."""
    u, v = torch.broadcast_tensors(u, v)
    distance = torch.empty_like(u)
    for index, name in enumerate(SHAPES):
        rows = shape == index
        distance[rows] = OUTLINES[name](u[rows], v[rows])
    return distance
