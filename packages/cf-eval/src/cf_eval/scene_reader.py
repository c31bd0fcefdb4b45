"""Read a picture of simple shapes back into objects: what stands where, in which colour, how large.

The reader is rule-based and knows only a palette and the outline of each shape, so it judges a *generated* picture
by the same yardstick as a rendered one and cannot be flattered by a learned feature.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

Inside = Callable[
    [Tensor, Tensor], Tensor
]  # (u, v) offsets from the centroid, shape of area 1 -> inside (bool)


@dataclass(frozen=True)
class Detection:
    """One object found in a picture. Lengths are fractions of the picture's side, y grows downwards."""

    shape: str
    colour: str
    x: float
    y: float
    area: float  # fraction of the picture
    fit: float  # intersection over union with the ideal outline of `shape`


@dataclass(frozen=True)
class SceneReading:
    """Everything the reader found in one picture; `background` is the nearest name in the background palette."""

    objects: tuple[Detection, ...]
    background: str


@dataclass(frozen=True)
class SceneReader:
    """Finds coloured shapes on a plain ground.

    palette, backgrounds: name -> (r, g, b) in 0..1. shapes: name -> inside test of the unit-area outline.
    min_area: smaller specks are ignored (fraction of the picture). min_fit: blobs that match no outline this well
    are not objects at all.
    """

    palette: Mapping[str, tuple[float, float, float]]
    backgrounds: Mapping[str, tuple[float, float, float]]
    shapes: Mapping[str, Inside]
    min_area: float = 0.012
    min_fit: float = 0.6

    def __call__(self, images: Tensor) -> list[SceneReading]:
        """images (b, 3, h, w), uint8 or floating point in 0..1 -> one reading per picture."""
        images = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be (b, 3, h, w), got {tuple(images.shape)}")
        ground = background_colour(images)
        names = self._name_background(ground)
        blobs = connected_components(self._label(images, ground))
        return [SceneReading(self._objects(blob), name) for blob, name in zip(blobs, names, strict=True)]

    def _name_background(self, ground: Float[Tensor, "b 3"]) -> list[str]:
        known = torch.tensor(list(self.backgrounds.values()))
        nearest = torch.cdist(ground, known).argmin(1)
        return [list(self.backgrounds)[i] for i in nearest.tolist()]

    def _label(
        self, images: Float[Tensor, "b 3 h w"], ground: Float[Tensor, "b 3"]
    ) -> Int64[Tensor, "b h w"]:
        """Index of the nearest palette colour at each pixel, -1 where the ground is nearer than any of them."""
        palette = torch.tensor(list(self.palette.values()))
        known = torch.cat([palette.expand(len(images), -1, -1), ground[:, None]], 1)  # (b, n + 1, 3)
        distance = torch.cdist(images.flatten(2).mT, known)  # (b, h w, n + 1)
        label = distance.argmin(-1).unflatten(1, images.shape[2:])
        return label.masked_fill(label == len(palette), -1)

    def _objects(self, blobs: "list[Blob]") -> tuple[Detection, ...]:
        found = [self._recognise(blob) for blob in blobs if blob.mask.float().mean() >= self.min_area]
        return tuple(d for d in found if d.fit >= self.min_fit)

    def _recognise(self, blob: "Blob") -> Detection:
        """Lay each outline of equal area on the blob's centroid; the best overlap names the shape."""
        h, w = blob.mask.shape
        ys, xs = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
        count = blob.mask.sum()
        y, x = (ys[blob.mask].mean(), xs[blob.mask].mean())
        scale = count.sqrt()
        fits = {}
        for name, inside in self.shapes.items():
            ideal = inside((xs - x) / scale, (ys - y) / scale)
            fits[name] = float((ideal & blob.mask).sum() / (ideal | blob.mask).sum())
        best = max(fits, key=lambda name: fits[name])
        colour = list(self.palette)[blob.label]
        return Detection(best, colour, float(x) / w, float(y) / h, float(count) / (h * w), fits[best])


@dataclass(frozen=True)
class Blob:
    """One connected region of one palette colour."""

    label: int
    mask: Bool[Tensor, "h w"]


def background_colour(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3"]:
    """Median colour of the one-pixel frame: objects rarely touch it."""
    frame = [images[:, :, 0], images[:, :, -1], images[:, :, 1:-1, 0], images[:, :, 1:-1, -1]]
    return torch.cat(frame, -1).median(-1).values


def connected_components(labels: Int64[Tensor, "b h w"]) -> list[list[Blob]]:
    """Connected regions (4-neighbourhood) of equal non-negative label, per picture.

    Every pixel starts with its own number and takes the largest among its like neighbours until nothing changes.
    """
    b, h, w = labels.shape
    owner = torch.arange(1, h * w + 1, dtype=torch.float32).view(1, h, w).expand(b, h, w) * (labels >= 0)
    while True:
        spread = owner
        for axis, step in ((1, 1), (1, -1), (2, 1), (2, -1)):
            like = _shift(labels, axis, step, -1) == labels
            spread = torch.maximum(spread, _shift(owner, axis, step, 0) * (like & (labels >= 0)))
        if torch.equal(spread, owner):
            break
        owner = spread
    return [_blobs(owner[i], labels[i]) for i in range(b)]


def _shift(x: Tensor, axis: int, step: int, fill: int) -> Tensor:
    """x moved by one pixel along an axis, the uncovered line filled."""
    pad = {(1, 1): (0, 0, 1, 0), (1, -1): (0, 0, 0, 1), (2, 1): (1, 0), (2, -1): (0, 1)}[axis, step]
    padded = F.pad(x, pad, value=fill)
    return padded.narrow(axis, 0 if step == 1 else 1, x.shape[axis])


def _blobs(owner: Float[Tensor, "h w"], labels: Int64[Tensor, "h w"]) -> list[Blob]:
    blobs = []
    for number in owner[owner > 0].unique().tolist():
        mask = owner == number
        blobs.append(Blob(int(labels[mask][0]), mask))
    return blobs
