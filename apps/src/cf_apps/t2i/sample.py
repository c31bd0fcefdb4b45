"""Draw pictures: caption -> language model -> text encoder -> x_0 -> solve -> x_1 -> codec -> image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from cf_encoders import DiagonalGaussian
from cf_flowcore import Solution
from jaxtyping import Float
from torch import Tensor

from cf_apps.engine.commands.app import task_run
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import SampleConfig, carry
from cf_apps.engine.precision import autocast, drawn_in
from cf_apps.engine.ranks.draws import draws_of
from cf_apps.engine.saving.export import load_into
from cf_apps.t2i.model import SAMPLING_PARTS, T2IModel, Velocity, rebuild

Draws = torch.Generator | Sequence[torch.Generator]
"""What x_0 is drawn from: one generator for all captions, or one for each, which then never know of one another."""

SHOWN = 60  # characters of a caption in a message


@dataclass(frozen=True)
class Sampler:
    """A trained model, ready to draw. precision: `fp32`, `bf16` or `auto`. weak: a worse velocity, for autoguidance."""

    model: T2IModel
    precision: str = "fp32"
    weak: Velocity | None = None

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
        return cls(model, drawn_in(config["fit"]["precision"]))

    @torch.no_grad()
    def encode(
        self, captions: Sequence[str], generator: Draws, temperature: float = 1.0
    ) -> Float[Tensor, "b c h w"]:
        """x_0 of captions, one draw each. Too long captions are refused.

        temperature scales the noise in x_0: the sigma that the encoder learned, or the fixed one of `noise`; 0 takes
        the mean. An encoder without variation has none to scale. The baseline's x_0 is all noise: 0 gives 0.
        """
        for index in self.model.language.too_long(captions):
            text, most = captions[index], self.model.language.max_tokens
            short = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
            raise ConfigError(f"caption of more than {most} tokens: {short!r}; shorten it")
        with autocast(self.model.device, self.precision):
            return drawn(self.model.encode_text(captions), generator, temperature).float()

    @torch.no_grad()
    def velocity(self, captions: Sequence[str] | None = None) -> Velocity:
        """v(x_t, t, is_null) for rows of these captions, which only the baseline reads (T2IModel.velocity)."""
        with autocast(self.model.device, self.precision):
            return self.model.velocity(captions)

    @torch.no_grad()
    def flow(
        self, x_0: Float[Tensor, "b c h w"], how: SampleConfig, captions: Sequence[str] | None = None
    ) -> Solution:
        """Carry x_0 to x_1 with indicator guidance (CrossFlow eq. 3), or autoguidance where there is a weak model.

        captions: of the rows. The baseline reads them on the way (ConfigError without); elsewhere x_0 says it all.
        """
        bound = self.model.config.from_noise  # to the captions, row by row
        return carry(self.velocity(captions), x_0, how, self.precision, self.weak, bound=bound)

    @torch.no_grad()
    def decode(self, x_1: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 H W"]:
        """Images in [0, 1]."""
        return self.model.codec.decode(x_1).clamp(0, 1)

    def draw(
        self, captions: Sequence[str], how: SampleConfig, generator: Draws, batch_size: int = 128
    ) -> Float[Tensor, "b 3 H W"]:
        """One image in [0, 1] for each caption, on the CPU."""
        images = []
        for start in range(0, len(captions), batch_size):
            rows = slice(start, start + batch_size)
            own = generator if isinstance(generator, torch.Generator) else generator[rows]
            x_0 = self.encode(captions[rows], own, how.temperature)
            images.append(self.decode(self.flow(x_0, how, captions[rows]).x).cpu())
        return torch.cat(images)


def drawn(posterior: DiagonalGaussian, generator: Draws, temperature: float) -> Float[Tensor, "b c h w"]:
    """x_0 of each row. With a generator for each, a row is what it would be in any other batch."""
    if isinstance(generator, torch.Generator):
        return draws_of(generator).sample(posterior, temperature)
    if len(generator) != len(posterior.mean):
        raise ValueError(f"{len(generator)} generators for {len(posterior.mean)} captions; pass one for each")
    rows = zip(posterior.mean.split(1), posterior.logvar.split(1), generator, strict=True)
    return torch.cat([DiagonalGaussian(mean, logvar).sample(own, temperature) for mean, logvar, own in rows])
