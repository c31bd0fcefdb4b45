"""Draw pictures: caption -> language model -> text encoder -> x_0 -> solve -> x_1 -> codec -> image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from cf_flowcore import Solution
from jaxtyping import Float
from torch import Tensor

from cf_apps.engine.app import task_run
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.export import load_into
from cf_apps.engine.flow import SampleConfig, carry
from cf_apps.engine.precision import autocast
from cf_apps.t2i.model import SAMPLING_PARTS, T2IModel, rebuild


@dataclass(frozen=True)
class Sampler:
    """A trained model, ready to draw. precision: `fp32` or `bf16`. weak: a worse velocity, for autoguidance."""

    model: T2IModel
    precision: str = "fp32"
    weak: Callable[..., Tensor] | None = None

    @classmethod
    def from_run(cls, run: Path, device: torch.device) -> "Sampler":
        """The averaged weights of a run folder. Raises RunError or CheckpointError naming what is wrong with it."""
        tensors, config = task_run(run, "t2i")
        model = rebuild(config["task"], device)
        parts = torch.nn.ModuleDict(
            {name: model.modules[name] for name in SAMPLING_PARTS if name in model.modules}
        )
        load_into(parts, tensors, str(run))
        model.modules.eval()
        return cls(model, config["fit"]["precision"])

    @torch.no_grad()
    def encode(
        self, captions: Sequence[str], generator: torch.Generator, temperature: float = 1.0
    ) -> Float[Tensor, "b c h w"]:
        """x_0 of captions, one draw each; temperature 0 takes the mean. Too long captions are refused."""
        for index in self.model.language.too_long(captions):
            raise ConfigError(
                f"caption of more than {self.model.language.max_tokens} tokens: {captions[index]!r}; shorten it"
            )
        with autocast(self.model.device, self.precision):
            return self.model.encode_text(captions).sample(generator, temperature).float()

    @torch.no_grad()
    def flow(self, x_0: Float[Tensor, "b c h w"], how: SampleConfig) -> Solution:
        """Carry x_0 to x_1 with indicator guidance (CrossFlow eq. 3), or autoguidance where there is a weak model."""
        return carry(self.model.backbone, x_0, how, self.precision, self.weak)

    @torch.no_grad()
    def decode(self, x_1: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 H W"]:
        """Images in [0, 1]."""
        return self.model.codec.decode(x_1).clamp(0, 1)

    def draw(
        self, captions: Sequence[str], how: SampleConfig, generator: torch.Generator, batch_size: int = 128
    ) -> Float[Tensor, "b 3 H W"]:
        """One image in [0, 1] for each caption, on the CPU."""
        images = []
        for start in range(0, len(captions), batch_size):
            x_0 = self.encode(captions[start : start + batch_size], generator, how.temperature)
            images.append(self.decode(self.flow(x_0, how).x).cpu())
        return torch.cat(images)
