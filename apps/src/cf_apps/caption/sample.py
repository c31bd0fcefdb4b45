"""Caption pictures: picture -> codec -> x_0 -> solve -> x_1 -> decoder -> words."""

from dataclasses import dataclass
from pathlib import Path

import torch
from cf_encoders import DiagonalGaussian
from jaxtyping import UInt8
from torch import Tensor, nn

from cf_apps.caption.model import NAME, SAMPLING_PARTS, CaptionModel, rebuild
from cf_apps.engine.commands.app import task_run
from cf_apps.engine.flow import SampleConfig, carry
from cf_apps.engine.precision import autocast, drawn_in
from cf_apps.engine.ranks.draws import draws_of
from cf_apps.engine.saving.export import load_into


@dataclass(frozen=True)
class Captioner:
    """A trained model, ready to caption. precision: `fp32`, `bf16` or `auto`."""

    model: CaptionModel
    precision: str = "fp32"

    @classmethod
    def from_run(cls, run: Path, device: torch.device) -> "Captioner":
        """The averaged weights of a run folder. Raises RunError or CheckpointError naming what is wrong with it."""
        tensors, config = task_run(run, NAME)
        model = rebuild(config["task"], device)
        parts = nn.ModuleDict({name: model.modules[name] for name in SAMPLING_PARTS if name in model.modules})
        load_into(parts, tensors, str(run))
        model.modules.eval()
        return cls(model, drawn_in(config["fit"]["precision"]))

    @torch.no_grad()
    def captions(
        self,
        images: UInt8[Tensor, "b 3 s s"],
        how: SampleConfig,
        generator: torch.Generator,
        batch_size: int = 128,
    ) -> list[str]:
        """A caption of each square picture of the run's size; another draw from the generator may say another thing."""
        written = []
        for some in images.split(batch_size):
            x_0 = draws_of(generator).sample(self._source(some), how.temperature).float()
            written += self.model.write(carry(self.model.backbone, x_0, how, self.precision).x)
        return written

    @torch.no_grad()
    def without_flow(self, images: UInt8[Tensor, "b 3 s s"]) -> list[str]:
        """What the decoder reads out of the mean of x_0: no more than noise, unless L_mean taught it x_1."""
        return self.model.write(self._source(images).mean.float())

    def _source(self, images: UInt8[Tensor, "b 3 s s"]) -> DiagonalGaussian:
        with autocast(self.model.device, self.precision):
            return self.model.source(self.model.encode(images))
