"""Depth maps as people want them: beside the picture in colours, as a 16-bit PNG, as a cloud of points."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cf_apps.data.pictures import resized
from cf_apps.depth.sample import stretched
from cf_apps.engine.errors import ConfigError, RunError
from cf_apps.engine.files import replaced
from cf_apps.engine.watching.render import image_grid

if TYPE_CHECKING:
    import PIL.Image

COLOUR_MAP = "Spectral"  # near is red, far is blue
SHOWN = 512  # the longer side of a picture beside its depth, in pixels, at most
VIEW = 60.0  # degrees that a photo is wide where nobody says its focal length
MOST_POINTS = 1_000_000
VERTEX = np.dtype([(axis, "<f4") for axis in "xyz"] + [(c, "u1") for c in ("red", "green", "blue")])


def coloured(depth: Float[Tensor, "h w"], near: float, far: float) -> Float[Tensor, "3 h w"]:
    """Depth as colours in [0, 1], red for `near`, blue for `far`, grey where there is none (NaN)."""
    from matplotlib import colormaps

    share = ((depth - near) / max(far - near, 1e-12)).clamp(0, 1).nan_to_num()
    colours = torch.from_numpy(colormaps[COLOUR_MAP](share.numpy())[..., :3]).permute(2, 0, 1)
    return torch.where(depth.isfinite(), colours.float(), 0.5)


def span(depth: Float[Tensor, "h w"]) -> tuple[float, float]:
    """The depths between which 96 % of a map lie; (0, 1) for one without any."""
    finite = depth[depth.isfinite()].double()
    if not len(finite):
        return 0.0, 1.0
    near, far = np.percentile(finite.numpy(), [2, 98]).tolist()
    return near, far


def side_by_side(
    picture: UInt8[Tensor, "3 h w"], depth: Float[Tensor, "h w"], name: str, unit: str
) -> "PIL.Image.Image":
    """The picture and its depth in colours, with the range of depths that the colours span."""
    h, w = picture.shape[1:]
    factor = min(1.0, SHOWN / max(h, w))
    size = (max(1, round(factor * h)), max(1, round(factor * w)))
    small = stretched(depth, *size)
    near, far = span(small)
    both = torch.stack([resized(picture, *size).float() / 255, coloured(small, near, far)])
    return image_grid(both, 2, captions=[name, f"{near:.2f} (red) to {far:.2f} (blue) {unit}".strip()])


def scale_of(far: float) -> float:
    """Depth of one count of a 16-bit PNG: the smallest power of ten that holds `far`."""
    return 10.0 ** math.ceil(math.log10(far / 65535))


def save_png16(depth: Float[Tensor, "h w"], scale: float, path: Path) -> Path:
    """A 16-bit grey PNG of counts of `scale`; a depth counts at least 1, for 0 means 'no reading'."""
    from PIL import Image

    counts = (depth.double() / scale).round().clamp(1, 65535).numpy().astype(np.uint16)
    return _saved(path, lambda temporary: Image.fromarray(counts).save(temporary, format="PNG"))


def focal_of(width: int, view: float = VIEW) -> float:
    """Focal length, in pixels, of a picture `width` pixels and `view` degrees wide."""
    return width / 2 / math.tan(math.radians(view) / 2)


def save_cloud(
    picture: UInt8[Tensor, "3 h w"],
    depth: Float[Tensor, "h w"],
    focal: float,
    path: Path,
    comment: str,
    most: int = MOST_POINTS,
) -> Path:
    """A point a pixel as binary .ply: x = (u - w/2) z / f to the right, y = (v - h/2) z / f down, z = depth.

    (u, v) is the pixel's centre; the camera is a pinhole with its axis through the middle. Of a picture with more
    than `most` pixels every second, third, ... row and column is taken.
    """
    if not 0 < focal < math.inf:
        raise ConfigError(f"the focal length must be a positive number of pixels, got {focal}")
    h, w = depth.shape
    step = max(1, math.ceil(math.sqrt(h * w / most)))
    v, u = np.meshgrid(np.arange(0, h, step), np.arange(0, w, step), indexing="ij")
    z = depth[::step, ::step].double().numpy()
    points = np.empty(z.shape, VERTEX)
    points["x"], points["y"], points["z"] = (u + 0.5 - w / 2) * z / focal, (v + 0.5 - h / 2) * z / focal, z
    for channel, name in enumerate(("red", "green", "blue")):
        points[name] = picture[channel, ::step, ::step].numpy()
    kinds = {"f": "float", "u": "uchar"}
    properties = [f"property {kinds[VERTEX[name].kind]} {name}" for name in VERTEX.names or ()]
    comments = [f"comment {comment}", "comment x to the right, y down, z away from the camera"]
    header = ["ply", "format binary_little_endian 1.0", *comments, f"element vertex {points.size}"]
    head = "\n".join([*header, *properties, "end_header", ""]).encode("ascii")
    return _saved(path, lambda temporary: temporary.write_bytes(head + points.tobytes()))


def _saved(path: Path, write: Callable[[Path], object]) -> Path:
    """Write a file whole or not at all, making its folder; RunError when the disk refuses."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as temporary:
            write(temporary)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}; choose another --out") from error
    return path
