"""Scenes of one to three shapes, drawn at random: the exact truth behind `captioned_shapes`."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

SHAPES = ("circle", "square", "triangle")
COLOURS = {
    "red": (0.86, 0.12, 0.14),
    "green": (0.10, 0.62, 0.22),
    "blue": (0.12, 0.28, 0.86),
    "yellow": (0.98, 0.84, 0.10),
    "purple": (0.56, 0.16, 0.70),
    "orange": (0.98, 0.50, 0.06),
}
BACKGROUNDS = {"white": (1.0, 1.0, 1.0), "gray": (0.74, 0.74, 0.76), "black": (0.08, 0.08, 0.10)}
SIZES = {"small": 0.135, "large": 0.19}  # radius as a fraction of the picture's side
AREA_BORDER = torch.pi * 0.1625**2  # between the largest small and the smallest large object
GAP = 0.06  # at least this much ground between two bounding boxes
PLACES = 3  # thirds of the picture: left, middle, right and top, middle, bottom
MAX_OBJECTS = 3


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


def draw_scenes(n: int, generator: torch.Generator, *, overlap: float = 0.0) -> Scenes:
    """n random scenes. overlap: 0 keeps all objects apart, up to 1 lets them hide one another (for depth).

    Half of the scenes with several objects hold copies of one kind, so that counting is learned as often as mixing.
    """
    if not 0.0 <= overlap <= 1.0:
        raise ValueError(f"overlap must be between 0 and 1, got {overlap}")
    count = torch.randint(1, MAX_OBJECTS + 1, (n,), generator=generator)
    present = torch.arange(MAX_OBJECTS) < count[:, None]
    shape = torch.randint(len(SHAPES), (n, MAX_OBJECTS), generator=generator)
    colour = torch.randint(len(COLOURS), (n, MAX_OBJECTS), generator=generator)
    size = torch.randint(len(SIZES), (n, MAX_OBJECTS), generator=generator)
    alike = torch.rand(n, 1, generator=generator) < 0.4
    shape, colour, size = (torch.where(alike, k[:, :1], k) for k in (shape, colour, size))
    x, y = _place_apart(present, size, generator, overlap)
    depth = 0.25 + 0.5 * torch.rand(n, MAX_OBJECTS, generator=generator)
    background = torch.randint(len(BACKGROUNDS), (n,), generator=generator)
    return Scenes(present, shape, colour, size, x, y, depth, background)


def radius(size: Int64[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Radius of each size class, as a fraction of the picture's side."""
    return torch.tensor(list(SIZES.values()))[size]


def _place_apart(present: Tensor, size: Tensor, generator: torch.Generator, overlap: float) -> tuple[Tensor, Tensor]:
    """Centres (n, 3) such that the objects' boxes keep their distance: the first of 48 candidate layouts that does.

    Three large objects fit only into the corners, so the last candidates are jittered corners.
    """
    r = radius(size)[:, None]  # (n, 1, 3)
    low, high = r + 0.03, 1 - r - 0.03
    x, y = _candidates(low, high, generator)  # (n, 48, 3)
    absent = ~present[:, None]
    pairs = [_clearance(x, y, r, i, j) + 10.0 * (absent[..., i] | absent[..., j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    clear = torch.stack(pairs).amin(0)  # (n, 48)
    needed = (1 - overlap) * GAP - overlap * 0.3
    enough = clear >= needed
    best = torch.where(enough.any(1), enough.float().argmax(1), clear.argmax(1))
    row = torch.arange(len(size))
    return x[row, best], y[row, best]


def _candidates(low: Tensor, high: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """40 free layouts, then 8 with the objects near distinct corners."""
    n, free, corners = len(low), 40, 8
    u = torch.rand(2, n, free, MAX_OBJECTS, generator=generator)
    corner = torch.rand(n, corners, 4, generator=generator).argsort(-1)[..., :MAX_OBJECTS]
    jitter = 0.04 * torch.rand(2, n, corners, MAX_OBJECTS, generator=generator)
    x_corner = torch.where(corner % 2 == 0, low + jitter[0], high - jitter[0])
    y_corner = torch.where(corner < 2, low + jitter[1], high - jitter[1])
    x, y = low + (high - low) * u[0], low + (high - low) * u[1]
    return torch.cat([x, x_corner], 1), torch.cat([y, y_corner], 1)


def _clearance(x: Tensor, y: Tensor, r: Tensor, i: int, j: int) -> Tensor:
    """Free space between the bounding boxes of objects i and j along the better axis."""
    apart = torch.maximum((x[..., i] - x[..., j]).abs(), (y[..., i] - y[..., j]).abs())
    return apart - (r[..., i] + r[..., j])
