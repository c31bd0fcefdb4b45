"""Scenes of one to three shapes, drawn at random: the exact truth behind `captioned_shapes`."""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Shape:
    """An outline in units of its radius: how far it reaches from its centre, and its area."""

    side: float
    up: float
    down: float
    area: float


TRIANGLE_INRADIUS = 0.684  # 0.88 of the triangle as large as the circle: three large ones still fit
SHAPES = {
    "circle": Shape(1.0, 1.0, 1.0, torch.pi),
    "square": Shape(1.0, 1.0, 1.0, 4.0),
    "triangle": Shape(
        TRIANGLE_INRADIUS * 3**0.5, TRIANGLE_INRADIUS * 2, TRIANGLE_INRADIUS, TRIANGLE_INRADIUS**2 * 27**0.5
    ),
}
COLOURS = {
    "red": (0.86, 0.12, 0.14),
    "green": (0.10, 0.62, 0.22),
    "blue": (0.12, 0.28, 0.86),
    "yellow": (0.98, 0.84, 0.10),
    "purple": (0.56, 0.16, 0.70),
    "orange": (0.98, 0.50, 0.06),
}
BACKGROUNDS = {"white": (1.0, 1.0, 1.0), "gray": (0.74, 0.74, 0.76), "black": (0.08, 0.08, 0.10)}
SIZES = {"small": 0.15, "large": 0.19}  # radius as a fraction of the picture's side
MARGIN = 0.02  # ground between an object and the picture's edge
THIRDS = (0.21, 0.5, 0.79)  # where objects stand, along each axis
JITTER = 0.025
GAP = 0.05  # at least this much ground between two bounding boxes
MAX_OBJECTS = 3
COUNT_SHARES = (0.35, 0.4, 0.25)  # of scenes with one, two and three objects
PAIRS = ((0, 1), (0, 2), (1, 2))

Layout = tuple[tuple[int, int], ...]  # (column, row) on the grid of thirds, object by object
# Where one expects objects of which nothing is said but their names, by how many there are ...
LISTED: dict[int, Layout] = {1: ((1, 1),), 2: ((0, 1), (2, 1)), 3: ((1, 0), (0, 2), (2, 2))}
# ... and where one expects them when the first is left of, right of, above or below the second.
RELATED: dict[int, tuple[Layout, ...]] = {
    2: (((0, 1), (2, 1)), ((2, 1), (0, 1)), ((1, 0), (1, 2)), ((1, 2), (1, 0))),
    3: (
        ((0, 2), (2, 2), (1, 0)),
        ((2, 2), (0, 2), (1, 0)),
        ((0, 0), (0, 2), (2, 1)),
        ((0, 2), (0, 0), (2, 1)),
    ),
}
ORDERLY_SHARE = 0.25  # of scenes that are laid out as expected, half of them each way


@dataclass(frozen=True)
class Scenes:
    """n scenes of up to three objects, as arrays. Lengths are fractions of the picture's side; y grows downwards.

    depth: 0 is at the camera, 1 is the back wall. present: which of the three slots hold an object.
    """

    present: Bool[Tensor, "n 3"]
    shape: Int64[Tensor, "n 3"]
    colour: Int64[Tensor, "n 3"]
    size: Int64[Tensor, "n 3"]
    x: Float[Tensor, "n 3"]
    y: Float[Tensor, "n 3"]
    depth: Float[Tensor, "n 3"]
    background: Int64[Tensor, "n"]

    def __len__(self) -> int:
        return len(self.background)

    def __getitem__(self, rows: Tensor | slice) -> "Scenes":
        return Scenes(*(getattr(self, f.name)[rows] for f in fields(self)))

    @cached_property
    def lists(self) -> dict[str, list[Any]]:
        """The same arrays as plain lists: single numbers are slow to read from tensors."""
        return {f.name: getattr(self, f.name).tolist() for f in fields(self)}


def in_reading_order(scenes: Scenes) -> Scenes:
    """The same scenes, their objects numbered as one reads: row after row of the grid of thirds, from the left.

    Slots without an object come last.
    """
    column, row = (_nearest_third(axis) for axis in (scenes.x, scenes.y))
    place = 3 * row + column + 9 * ~scenes.present
    order = place.argsort(dim=1, stable=True)
    arrays = {f.name: getattr(scenes, f.name) for f in fields(scenes)}
    return Scenes(**{name: it.gather(1, order) if it.ndim == 2 else it for name, it in arrays.items()})


def _nearest_third(axis: Float[Tensor, "n 3"]) -> Int64[Tensor, "n 3"]:
    return (axis[..., None] - torch.tensor(THIRDS)).abs().argmin(-1)


def draw_scenes(n: int, generator: torch.Generator, *, overlap: float = 0.0) -> Scenes:
    """n random scenes. overlap: 0 keeps all objects apart, up to 1 lets them hide one another (for depth).

    Two in five of the scenes with several objects hold copies of one kind, so that counting is learned too. One in
    four is laid out as one expects when nothing is said about places, so that captions need not always name them.
    """
    if not 0.0 <= overlap <= 1.0:
        raise ValueError(f"overlap must be between 0 and 1, got {overlap}")
    count = 1 + torch.multinomial(torch.tensor(COUNT_SHARES), n, replacement=True, generator=generator)
    present = torch.arange(MAX_OBJECTS) < count[:, None]
    shape = torch.randint(len(SHAPES), (n, MAX_OBJECTS), generator=generator)
    colour = torch.randint(len(COLOURS), (n, MAX_OBJECTS), generator=generator)
    size = torch.randint(len(SIZES), (n, MAX_OBJECTS), generator=generator)
    alike = torch.rand(n, 1, generator=generator) < 0.4
    shape, colour, size = (torch.where(alike, k[:, :1], k) for k in (shape, colour, size))
    x, y = _place_apart(present, _reach(shape, size), generator, overlap)
    depth = 0.25 + 0.5 * torch.rand(n, MAX_OBJECTS, generator=generator)
    background = torch.randint(len(BACKGROUNDS), (n,), generator=generator)
    return Scenes(present, shape, colour, size, x, y, depth, background)


def radius(size: Int64[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Radius of each size class, as a fraction of the picture's side."""
    return torch.tensor(list(SIZES.values()))[size]


def area_border(shape: str) -> float:
    """Area between the small and the large objects of a shape, as a fraction of the picture."""
    return SHAPES[shape].area * (sum(SIZES.values()) / 2) ** 2


@dataclass(frozen=True)
class _Reach:
    """How far each object reaches from its centre, (n, 1, 3) each, as fractions of the picture's side."""

    side: Tensor
    up: Tensor
    down: Tensor


def _reach(shape: Tensor, size: Tensor) -> _Reach:
    r = radius(size)
    of = {name: torch.tensor([getattr(s, name) for s in SHAPES.values()]) for name in ("side", "up", "down")}
    return _Reach(*((of[name][shape] * r)[:, None] for name in ("side", "up", "down")))


def _place_apart(
    present: Tensor, reach: _Reach, generator: torch.Generator, overlap: float
) -> tuple[Tensor, Tensor]:
    """Centres (n, 3) such that the objects' boxes keep their distance: the first of 48 candidate layouts that does."""
    x, y = _candidates(present, reach, generator)  # (n, 48, 3)
    absent = ~present[:, None]
    pairs = [_clearance(x, y, reach, i, j) + 10.0 * (absent[..., i] | absent[..., j]) for i, j in PAIRS]
    clear = torch.stack(pairs).amin(0)  # (n, 48)
    needed = (1 - overlap) * GAP - overlap * 0.3
    enough = clear >= needed
    best = torch.where(enough.any(1), enough.float().argmax(1), clear.argmax(1))
    row = torch.arange(len(x))
    return x[row, best], y[row, best]


def _candidates(present: Tensor, reach: _Reach, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """48 layouts near distinct places of a 3 x 3 grid; the last 8 near corners, where three large objects fit.

    The first is as expected in ORDERLY_SHARE of the scenes.
    """
    n, tries, corners = len(reach.side), 40, 8
    place = torch.rand(n, tries, 9, generator=generator).argsort(-1)[..., :MAX_OBJECTS]
    corner = torch.rand(n, corners, 4, generator=generator).argsort(-1)[..., :MAX_OBJECTS]
    cells = torch.cat(
        [torch.stack([place % 3, place // 3], -1), torch.stack([corner % 2, corner // 2], -1) * 2], 1
    )  # (n, 48, 3, 2)
    orderly = torch.rand(n, generator=generator) < ORDERLY_SHARE
    cells[orderly, 0] = _expected(present[orderly].sum(1), generator)
    jitter = JITTER * (2 * torch.rand(2, n, tries + corners, MAX_OBJECTS, generator=generator) - 1)
    thirds = torch.tensor(THIRDS)
    x = (thirds[cells[..., 0]] + jitter[0]).clamp(reach.side + MARGIN, 1 - reach.side - MARGIN)
    y = (thirds[cells[..., 1]] + jitter[1]).clamp(reach.up + MARGIN, 1 - reach.down - MARGIN)
    return x, y


def _expected(count: Int64[Tensor, "m"], generator: torch.Generator) -> Int64[Tensor, "m 3 2"]:
    """A layout for each number of objects: LISTED in half the cases, else one of RELATED. Absent ones lie anywhere."""
    ways = len(RELATED[2])
    choices = torch.tensor([[_padded(it) for it in _choices(n, ways)] for n in LISTED])  # (3, 8, 3, 2)
    return choices[count - 1, torch.randint(2 * ways, count.shape, generator=generator)]


def _choices(count: int, ways: int) -> tuple[Layout, ...]:
    listed = LISTED[count]
    return (listed,) * ways + RELATED.get(count, (listed,) * ways)


def _padded(layout: Layout) -> Layout:
    return layout + ((1, 1),) * (MAX_OBJECTS - len(layout))


def _clearance(x: Tensor, y: Tensor, reach: _Reach, i: int, j: int) -> Tensor:
    """Free space between the bounding boxes of objects i and j along the better axis; negative when they overlap."""
    beside = (x[..., i] - x[..., j]).abs() - reach.side[..., i] - reach.side[..., j]
    i_below = y[..., i] - reach.up[..., i] - y[..., j] - reach.down[..., j]
    j_below = y[..., j] - reach.up[..., j] - y[..., i] - reach.down[..., i]
    return torch.stack([beside, i_below, j_below]).amax(0)
