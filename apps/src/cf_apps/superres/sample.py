"""Enlarge pictures: small picture -> bicubic -> codec -> x_0 -> solve -> x_1 -> codec -> sharp picture."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from cf_apps.data.pictures import MAX_PIXELS
from cf_apps.engine.commands.app import task_run
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.precision import drawn_in
from cf_apps.engine.ranks.draws import draws_of
from cf_apps.engine.saving.export import load_into
from cf_apps.superres.config import SuperResConfig
from cf_apps.superres.degrade import to_bytes
from cf_apps.superres.model import NAME, SuperResModel, build
from cf_apps.superres.tiles import Tiled

BATCH = 64


@dataclass(frozen=True)
class Sampler:
    """A trained model, ready to enlarge. precision: `fp32`, `bf16` or `auto`, of the backbone."""

    model: SuperResModel
    precision: str = "fp32"

    @classmethod
    def from_run(cls, run: Path, device: torch.device) -> "Sampler":
        """The averaged weights of a run folder. Raises RunError or CheckpointError naming what is wrong with it."""
        tensors, config = task_run(run, NAME)
        model = build(SuperResConfig.from_dict(config["task"]["config"]), device)
        load_into(model.modules, tensors, str(run))
        model.modules.eval()
        return cls(model, drawn_in(config["fit"]["precision"]))

    @property
    def factor(self) -> int:
        return self.model.config.factor

    @property
    def small_size(self) -> int:
        """The side of the small squares that the model was trained on."""
        return self.model.config.image_size // self.factor

    def enlarge_all(
        self, small: UInt8[Tensor, "n 3 h w"], how: SampleConfig, generator: torch.Generator
    ) -> UInt8[Tensor, "n 3 H W"]:
        """Many pictures of one size, `BATCH` at a time."""
        parts = [self._draw(part, how, generator, lambda t, share: None) for part in small.split(BATCH)]
        return torch.cat(parts)

    def enlarge(
        self,
        picture: UInt8[Tensor, "3 h w"],
        how: SampleConfig,
        generator: torch.Generator,
        passed: Callable[[float, float], None] = lambda t, share: None,
    ) -> UInt8[Tensor, "3 H W"]:
        """A picture of any size at `factor` times it, in blended tiles where it is larger than the model's squares.

        A smaller one is continued by its border and cut out again. passed: told t, and the share of the tiles that are
        done there. Raises ConfigError where the result would have more than MAX_PIXELS.
        """
        self.require_room(picture, "the picture")
        _, height, width = picture.shape
        large = self._draw(self._padded(picture)[None], how, generator, passed)[0]
        return large[:, : height * self.factor, : width * self.factor].contiguous()

    def require_room(self, picture: UInt8[Tensor, "3 h w"], name: str) -> None:
        """Raise ConfigError where the enlarged picture would have more than MAX_PIXELS."""
        _, height, width = picture.shape
        if height * width * self.factor**2 > MAX_PIXELS:
            raise ConfigError(
                f"{name} has {width:,} x {height:,} pixels, {self.factor} times enlarged more than {MAX_PIXELS:,}; "
                "cut a part out or make it smaller first"
            )

    def _padded(self, picture: UInt8[Tensor, "3 h w"]) -> UInt8[Tensor, "3 H W"]:
        """At least as large as the trained squares, and of a size that the codec takes."""
        unit = math.lcm(self.factor, self._pixels_per_cell) // self.factor
        _, height, width = picture.shape
        below, beside = (max(-(-side // unit) * unit, self.small_size) - side for side in (height, width))
        bytes_as_floats = picture[None].float()  # F.pad cannot continue bytes
        return F.pad(bytes_as_floats, (0, beside, 0, below), mode="replicate")[0].to(torch.uint8)

    @property
    def _pixels_per_cell(self) -> int:
        return self.model.config.image_size // self.model.config.latent[1]

    @torch.no_grad()
    def _draw(
        self,
        small: UInt8[Tensor, "b 3 h w"],
        how: SampleConfig,
        generator: torch.Generator,
        passed: Callable[[float, float], None],
    ) -> UInt8[Tensor, "b 3 H W"]:
        model, cell = self.model, self._pixels_per_cell
        size = model.config.latent[1:]
        align = math.lcm(self.factor, cell) // cell
        overlap = size[0] // 4 // align * align
        v = Tiled(model.backbone, size, overlap, align, passed)
        up = model.encode_enlarged(small)
        noise = self._noise(up, generator)
        x_1 = model.method.draw(v, up, noise, model.config.source_noise, how, self.precision)
        return to_bytes(model.codec.decode(x_1)).cpu()

    def _noise(self, like: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
        """One field for the whole picture, drawn on the generator's device: the same whatever the model is on."""
        return draws_of(generator).normal(like.float()).to(like)
