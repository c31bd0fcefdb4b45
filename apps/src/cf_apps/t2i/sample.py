"""Draw pictures: caption -> language model -> text encoder -> x_0 -> solve -> x_1 -> codec -> image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from cf_flowcore import Solution, SolveError, classifier_free, solve
from cf_flowcore.tableaus import TABLEAUS
from jaxtyping import Float
from torch import Tensor

from cf_apps.engine.errors import ConfigError, RunError
from cf_apps.engine.export import load_into, load_model
from cf_apps.engine.precision import autocast
from cf_apps.t2i.config import SampleConfig
from cf_apps.t2i.model import SAMPLING_PARTS, T2IModel, rebuild

ADAPTIVE = tuple(name for name, rule in TABLEAUS.items() if rule.error is not None)


@dataclass(frozen=True)
class Sampler:
    """A trained model, ready to draw. precision: `fp32` or `bf16`."""

    model: T2IModel
    precision: str = "fp32"

    @classmethod
    def from_run(cls, run: Path, device: torch.device) -> "Sampler":
        """The averaged weights of a run folder. Raises RunError or CheckpointError naming what is wrong with it."""
        tensors, config = load_model(run)
        if "vocabulary" not in config.get("task", {}):
            raise RunError(f"{run} was not trained by `crossflow t2i train`; give one of its run folders")
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
        """Carry x_0 to x_1 with indicator guidance (CrossFlow eq. 3)."""

        def v(x: Tensor, t: Tensor, is_null: Tensor) -> Tensor:
            with autocast(self.model.device, self.precision):
                return self.model.backbone(x, t, is_null)

        steps = None if how.solver in ADAPTIVE else how.steps
        try:
            return solve(classifier_free(v, how.scale), x_0, method=how.solver, steps=steps)
        except (ValueError, SolveError) as error:
            raise ConfigError(str(error)) from error

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
