"""A velocity for pictures larger than the model was trained on: overlapping tiles, blended at every step of the flow.

Blending velocities, not finished pictures, leaves no seams: all tiles flow on one picture and from one noise.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

AT_ONCE = 64  # tiles in one call of the model
Place = tuple[int, int]


@dataclass(frozen=True)
class Tiled:
    """v on (b, c, H, W) by a model of (b, c, *size); H and W at least as large as `size`.

    overlap: of neighbouring tiles, at least; their weights fall linearly across it and sum to 1 everywhere.
    align: tiles start at multiples of it (the cells of one low-resolution pixel: the model knows no other phase); it
    divides H, W and `size`.
    passed: told t, and the share of the tiles that are done in this call.
    """

    v: Callable[..., Tensor]
    size: tuple[int, int]
    overlap: int
    align: int = 1
    passed: Callable[[float, float], None] = field(default=lambda t, share: None)

    def __call__(
        self, x: Float[Tensor, "b c H W"], t: Float[Tensor, "b"], is_null: Bool[Tensor, "b"] | None = None
    ) -> Float[Tensor, "b k H W"]:
        """The tiles' velocities, averaged with their weights. A picture of the model's own size is one tile."""
        places = self.places(x.shape[2], x.shape[3])
        window = (ramp(self.size[0], self.overlap)[:, None] * ramp(self.size[1], self.overlap)).to(x)
        weight = x.new_zeros(x.shape[2:])
        for place in places:
            weight[self._cut(place)] += window
        total: Tensor | None = None
        together = max(1, AT_ONCE // len(x))
        for first in range(0, len(places), together):
            now = places[first : first + together]
            velocities = self._velocities(x, t, is_null, now)
            if total is None:  # now it is known how many channels the model answers with
                total = x.new_zeros(len(x), velocities.shape[2], *x.shape[2:])
            for place, v in zip(now, velocities, strict=True):
                cut = self._cut(place)
                total[..., cut[0], cut[1]] += v * (window / weight[cut])
            self.passed(t[0].item(), (first + len(now)) / len(places))
        assert total is not None
        return total

    def places(self, height: int, width: int) -> list[Place]:
        """(top, left) of each tile, row by row."""
        rows, columns = (
            starts(length, tile, self.overlap, self.align)
            for length, tile in zip((height, width), self.size, strict=True)
        )
        return [(y, x) for y in rows for x in columns]

    def _velocities(
        self, x: Tensor, t: Tensor, is_null: Tensor | None, places: list[Place]
    ) -> Float[Tensor, "n b k h w"]:
        tiles = torch.cat([x[..., cut[0], cut[1]] for cut in map(self._cut, places)])
        n = len(places)
        v = self.v(tiles, t.repeat(n), None if is_null is None else is_null.repeat(n))
        return v.unflatten(0, (n, len(x)))

    def _cut(self, place: Place) -> tuple[slice, slice]:
        (y, x), (height, width) = place, self.size
        return slice(y, y + height), slice(x, x + width)


def starts(length: int, tile: int, overlap: int, align: int) -> list[int]:
    """Where tiles begin along an axis: evenly, at multiples of `align`, the last one ending at `length`."""
    if not 0 <= overlap <= tile - align:
        raise ValueError(
            f"tiles of {tile} that start at multiples of {align} overlap by 0 to {tile - align}, not {overlap}"
        )
    if length < tile or length % align or tile % align:
        raise ValueError(
            f"cannot tile {length} by {tile} at multiples of {align}; pad it to a multiple of that size"
        )
    last, step = (length - tile) // align, (tile - overlap) // align
    count = -(-last // step)
    return [k * last // max(count, 1) * align for k in range(count + 1)]


def ramp(tile: int, overlap: int) -> Float[Tensor, "tile"]:
    """A tile's weights along an axis: rising to 1 across the overlap, falling again, nowhere 0."""
    place = torch.arange(tile) + 0.5
    return (torch.minimum(place, tile - place) / max(overlap, 0.5)).clamp(max=1)
