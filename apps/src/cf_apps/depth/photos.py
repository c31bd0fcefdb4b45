"""What `crossflow depth sample` writes for a photo."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cf_apps.depth.outputs import focal_of, save_cloud, save_png16, scale_of, side_by_side
from cf_apps.depth.sample import Sampler
from cf_apps.engine.files import write_text
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.watching.render import save_png

AFFINE_OFFSET = (
    1.0  # a cloud needs depth > 0: of depth known up to scale and shift, 0 to 1 is drawn from 1 to 2
)


@dataclass(frozen=True)
class Wanted:
    """How depth is drawn. draws: see `Sampler.depths`; focal: of the point cloud, in pixels; None: 60 degrees wide."""

    how: SampleConfig
    draws: int = 1
    focal: float | None = None


def write_depth(
    sampler: Sampler,
    picture: UInt8[Tensor, "3 h w"],
    name: str,
    wanted: Wanted,
    generator: torch.Generator,
    out: Path,
) -> list[Path]:
    """Measure a picture and write NAME.png, NAME_depth16.png and NAME.ply; depth.json says what a count is."""
    depth = sampler.depths([picture], wanted.how, generator, wanted.draws)[0]
    scaling = sampler.model.config.scaling
    scale = scale_of(scaling.far if scaling.is_metric and scaling.far is not None else 1.0)
    focal = focal_of(picture.shape[2]) if wanted.focal is None else wanted.focal
    unit = "in the data's unit" if scaling.is_metric else "up to scale and shift"
    files = [
        save_png(side_by_side(picture, depth, name, unit), out / f"{name}.png"),
        save_png16(depth, scale, out / f"{name}_depth16.png"),
        save_cloud(
            picture,
            _positive(depth, scaling.is_metric),
            focal,
            out / f"{name}.ply",
            f"depth {unit}; pinhole camera, focal length {focal:.6g} pixels",
        ),
    ]
    write_text(out / "depth.json", json.dumps({"scale": scale, "unit": unit}))
    return files


def _positive(depth: Float[Tensor, "h w"], is_metric: bool) -> Float[Tensor, "h w"]:
    return depth if is_metric else depth + AFFINE_OFFSET
