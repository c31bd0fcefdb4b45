"""Depth of pictures: picture -> x_0 -> solve -> x_1 -> depth, at the picture's own size."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from cf_apps.data.pictures import resized
from cf_apps.depth.config import DepthConfig
from cf_apps.depth.model import NAME, DepthModel, build, to_unit
from cf_apps.engine.commands.app import task_run
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import SampleConfig, carry
from cf_apps.engine.precision import drawn_in
from cf_apps.engine.ranks.draws import draws_of
from cf_apps.engine.saving.export import load_into

BATCH = 64


@dataclass(frozen=True)
class Sampler:
    """A trained model, ready to measure. precision: `fp32`, `bf16` or `auto`, of the backbone."""

    model: DepthModel
    precision: str = "fp32"

    @classmethod
    def from_run(cls, run: Path, device: torch.device) -> "Sampler":
        """The averaged weights of a run folder. Raises RunError or CheckpointError naming what is wrong with it."""
        tensors, config = task_run(run, NAME)
        model = build(DepthConfig.from_dict(config["task"]["config"]), device)
        load_into(model.modules, tensors, str(run))
        model.modules.eval()
        return cls(model, drawn_in(config["fit"]["precision"]))

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) that the model sees."""
        return self.model.config.size

    @torch.no_grad()
    def encode(
        self, images: UInt8[Tensor, "b 3 h w"], generator: torch.Generator, temperature: float = 1.0
    ) -> Float[Tensor, "b 1 h w"]:
        """x_0 of pictures of the model's size, one draw each; temperature 0 takes the mean."""
        posterior = self.model.encode(to_unit(images, self.model.device))
        return draws_of(generator).sample(posterior, temperature)

    @torch.no_grad()
    def means(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b h w"]:
        """The mean of x_0, on the CPU."""
        return self.model.encode(to_unit(images, self.model.device)).mean[:, 0].cpu()

    def draw(
        self, images: UInt8[Tensor, "b 3 h w"], how: SampleConfig, generator: torch.Generator
    ) -> Float[Tensor, "b h w"]:
        """Depth of pictures of the model's size, on the CPU; see `ScalingConfig.to_depth` for its unit."""
        x_0 = self.encode(images, generator, how.temperature)
        x_1 = carry(self.model.backbone, x_0, how, self.precision).x
        return self.model.config.scaling.to_depth(x_1.float()).cpu()

    def depths(
        self,
        pictures: Sequence[UInt8[Tensor, "3 _ _"]],
        how: SampleConfig,
        generator: torch.Generator,
        draws: int = 1,
    ) -> list[Float[Tensor, "_ _"]]:
        """Depth of pictures of any size, each at its own: stretched to the model's size, measured, stretched back.

        draws: depth maps of one picture, from as many x_0, of which each pixel's median is taken.
        """
        if draws < 1:
            raise ConfigError(f"draws must be at least 1, got {draws}")
        found = []
        for start in range(0, len(pictures), BATCH):
            part = pictures[start : start + BATCH]
            images = torch.stack([resized(picture, *self.size) for picture in part])
            depth = torch.stack([self.draw(images, how, generator) for _ in range(draws)]).median(0).values
            found += [
                stretched(plane, *picture.shape[1:]) for plane, picture in zip(depth, part, strict=True)
            ]
        return found


def stretched(depth: Float[Tensor, "h w"], height: int, width: int) -> Float[Tensor, "{height} {width}"]:
    """A depth map at another size, bilinear."""
    if depth.shape == (height, width):
        return depth
    return F.interpolate(depth[None, None], (height, width), mode="bilinear", antialias=False)[0, 0]
