"""The options of drawing text to image, and a sampler opened with them."""

from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Literal

import torch

from cf_apps.engine.commands.common import Drawing, sample_config
from cf_apps.engine.device import choose_device
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.run import commit, versions
from cf_apps.t2i.sample import Sampler
from cf_apps.t2i.weak import weak_velocity

SHIPPED = "tiny"  # the name by which the model inside the package is called


@dataclass(frozen=True)
class T2IDrawing(Drawing):
    """How pictures are drawn; what is not given comes from the run."""

    x0: Literal["sample", "mean"] = "sample"
    """mean: of what the caption may be, its middle."""
    guidance: Literal["indicator", "autoguidance", "none"] = "indicator"
    """What --scale pushes away from: the field with the indicator off, a --weak model, or nothing."""
    weak: Path | None = None
    """Autoguidance: an under-trained checkpoint, RUN/checkpoints/step-00001000."""

    def over(self, run: SampleConfig) -> SampleConfig:
        """The run's own choice with what was given in its place. ConfigError where options contradict one another."""
        if self.x0 == "mean" and self.temperature not in (None, 0.0):
            raise ConfigError(f"--x0 mean is temperature 0, not {self.temperature:g}; give one of the two")
        if self.guidance == "none" and self.scale not in (None, 1.0):
            raise ConfigError(f"--guidance none is scale 1, not {self.scale:g}; give one of the two")
        if self.guidance != "autoguidance" and self.weak is not None:
            raise ConfigError(f"--weak {self.weak} is for --guidance autoguidance, not {self.guidance}")
        how = super().over(run)
        if self.guidance == "autoguidance" and self.weak is None:
            raise ConfigError("--guidance autoguidance needs --weak, a checkpoint that learned less")
        if self.guidance == "autoguidance" and self.scale is None and how.scale == 1:
            raise ConfigError(
                "--guidance autoguidance needs --scale, such as 2: this run draws at 1, unguided"
            )
        how = replace(how, temperature=0.0) if self.x0 == "mean" else how
        return replace(how, scale=1.0) if self.guidance == "none" else how

    def open(self, model: str, device: torch.device | None = None) -> tuple[Sampler, SampleConfig]:
        """The sampler of a run folder or of `tiny`, and how it draws. device: of this rank, where there are several."""
        run = run_folder(model)
        how = self.over(sample_config(run))
        sampler = Sampler.from_run(run, device or choose_device(self.device))
        if self.weak is not None:
            sampler = replace(sampler, weak=weak_velocity(self.weak, sampler))
        return sampler, how

    def record(self, model: str, how: SampleConfig) -> dict[str, object]:
        """What pictures were drawn with: settings, run, code."""
        weak = None if self.weak is None else str(self.weak.absolute())
        settings = how.__dict__ | {"guidance": self.guidance, "weak": weak}
        return settings | {"run": run_name(model), "commit": commit(), "cf-apps": versions().get("cf-apps")}


def shipped_run() -> Path:
    """The folder of the `tiny` model that comes with the package."""
    return Path(str(files("cf_apps") / "assets" / SHIPPED))


def run_name(model: str) -> str:
    """`tiny`, or where the run folder is."""
    folder = run_folder(model)
    return SHIPPED if folder == shipped_run() else str(folder.absolute())


def run_folder(name: str) -> Path:
    """A run folder, or the shipped model by its name."""
    return shipped_run() if name == SHIPPED and not Path(name).exists() else Path(name)
