"""Pictures with their depth maps: what every depth data set hands to training and to evaluation."""

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from cf_apps.data.captioned import DataError
from cf_apps.data.captioned_shapes import CaptionedShapes
from cf_apps.data.pictures import resized
from cf_apps.engine.ranks.draws import draws_of

WALL = 1.0  # depth of the back wall of captioned_shapes; every object is nearer


@dataclass(frozen=True)
class DepthPair:
    """One picture at its own size. image: RGB bytes (3, h, w); depth: (h, w), in metres unless the set says otherwise.

    valid: where depth is a reading; elsewhere its value means nothing (0 by custom).
    """

    image: UInt8[Tensor, "3 h w"]
    depth: Float[Tensor, "h w"]
    valid: Bool[Tensor, "h w"]

    def resized(self, height: int, width: int) -> "DepthPair":
        """Stretched to height x width: the picture antialiased, of the depth map the nearest pixel (no mixtures)."""
        if self.image.shape[1:] == (height, width):
            return self
        depth, valid = (
            F.interpolate(x[None, None].float(), (height, width), mode="nearest-exact")[0, 0]
            for x in (self.depth, self.valid)
        )
        return DepthPair(resized(self.image, height, width), depth, valid > 0)


@dataclass(frozen=True)
class DepthBatch:
    """b pairs of one size, as in `DepthPair`."""

    images: UInt8[Tensor, "b 3 h w"]
    depth: Float[Tensor, "b h w"]
    valid: Bool[Tensor, "b h w"]

    @classmethod
    def of(cls, pairs: list[DepthPair]) -> "DepthBatch":
        """Pairs of equal size, stacked."""
        return cls(
            *(torch.stack([getattr(pair, name) for pair in pairs]) for name in ("image", "depth", "valid"))
        )


@runtime_checkable
class DepthPairs(Protocol):
    """A finite set of pictures with depth maps; any of them can be read in any order.

    `batch` gives them at one size, the model's. With a generator, sets that may be looked at in a mirror are mirrored
    at random; without, never. `pair` gives one at the size it is stored at, at which depth is scored.
    """

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...

    def batch(self, indices: Int64[Tensor, "b"], generator: torch.Generator | None = None) -> DepthBatch: ...

    def pair(self, index: int) -> DepthPair: ...


@dataclass(frozen=True)
class DepthArrays:
    """Pairs that fit in memory. Raises DataError where a picture has no pixel of known depth."""

    images: UInt8[Tensor, "n 3 h w"]
    depth: Float[Tensor, "n h w"]
    valid: Bool[Tensor, "n h w"]
    name: str

    def __post_init__(self) -> None:
        empty = (~self.valid.flatten(1).any(1)).nonzero().flatten().tolist()
        if empty:
            raise DataError(
                f"{self.name}: depth map {empty[0]} has no pixel with a reading; leave the pair out"
            )

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Int64[Tensor, "b"], generator: torch.Generator | None = None) -> DepthBatch:
        return DepthBatch(self.images[indices], self.depth[indices], self.valid[indices])

    def pair(self, index: int) -> DepthPair:
        return DepthPair(self.images[index], self.depth[index], self.valid[index])

    def subset(self, indices: Int64[Tensor, "m"], name: str) -> "DepthArrays":
        """The same set cut down to `indices`, in that order."""
        return DepthArrays(self.images[indices], self.depth[indices], self.valid[indices], name)


@dataclass(frozen=True)
class ShapesDepth:
    """captioned_shapes as depth pairs: objects hide one another, every pixel's depth is known exactly.

    Depth has no unit: 0 at the camera, WALL (1) at the back wall. Not to be mirrored: light comes from the upper left.
    """

    scenes: CaptionedShapes
    name: str = "shapes"

    @classmethod
    def drawn(cls, size: int, image_size: int, seed: int) -> "ShapesDepth":
        """`size` scenes of image_size^2 pixels in which objects may hide one another as much as they can."""
        return cls(CaptionedShapes(size, image_size, seed, overlap=1.0))

    def __len__(self) -> int:
        return len(self.scenes)

    def batch(self, indices: Int64[Tensor, "b"], generator: torch.Generator | None = None) -> DepthBatch:
        images, depth = self.scenes.scenes(indices)
        return DepthBatch(images, depth.float(), torch.ones_like(depth, dtype=torch.bool))

    def pair(self, index: int) -> DepthPair:
        one = self.batch(torch.tensor([index]))
        return DepthPair(one.images[0], one.depth[0], one.valid[0])


def foreground(depth: Float[Tensor, "*b h w"]) -> Bool[Tensor, "*b h w"]:
    """Where captioned_shapes shows an object rather than the back wall."""
    return depth < WALL


@dataclass(frozen=True)
class Foreground:
    """Shapes of which only the objects' pixels count: `valid` is `foreground`. For evaluation."""

    pairs: ShapesDepth

    @property
    def name(self) -> str:
        return f"{self.pairs.name} (foreground)"

    def __len__(self) -> int:
        return len(self.pairs)

    def batch(self, indices: Int64[Tensor, "b"], generator: torch.Generator | None = None) -> DepthBatch:
        whole = self.pairs.batch(indices, generator)
        return replace(whole, valid=foreground(whole.depth))

    def pair(self, index: int) -> DepthPair:
        whole = self.pairs.pair(index)
        return replace(whole, valid=foreground(whole.depth))


@dataclass(frozen=True)
class Mirrored:
    """Pairs of which, with a generator, half are seen in a mirror: left and right of the world are alike."""

    pairs: DepthPairs

    @property
    def name(self) -> str:
        return self.pairs.name

    def __len__(self) -> int:
        return len(self.pairs)

    def batch(self, indices: Int64[Tensor, "b"], generator: torch.Generator | None = None) -> DepthBatch:
        batch = self.pairs.batch(indices, generator)
        if generator is None:
            return batch
        turned = draws_of(generator).uniform(len(indices)) < 0.5
        images = torch.where(turned[:, None, None, None], batch.images.flip(-1), batch.images)
        depth = torch.where(turned[:, None, None], batch.depth.flip(-1), batch.depth)
        return DepthBatch(
            images, depth, torch.where(turned[:, None, None], batch.valid.flip(-1), batch.valid)
        )

    def pair(self, index: int) -> DepthPair:
        return self.pairs.pair(index)
