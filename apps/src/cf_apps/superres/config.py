"""Everything a super-resolution run is made of, as one frozen record that goes into config.json and comes back."""

from dataclasses import dataclass, field

from cf_transformer import DiMRConfig

from cf_apps.engine.checks import require_count, require_known, require_weight
from cf_apps.engine.codecs import CodecConfig
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import FlowConfig, SampleConfig
from cf_apps.engine.records import Record
from cf_apps.superres.methods import METHODS


@dataclass(frozen=True)
class LossConfig(FlowConfig):
    """L_FM without the indicator: the enlarged picture is all there is to say, so there is nothing to leave out."""

    null_rate: float = 0.0


@dataclass(frozen=True)
class SuperResConfig(Record):
    """A model that enlarges pictures `factor` times, trained on squares of image_size pixels.

    method: one of `METHODS`. source_noise: sigma of the noise in x_0 = up + sigma eps, in units of the latent (of
    `crossflow` alone). With 0, as the paper leaves it, x_0 is one point for all the sharp pictures that fit it, and
    the flow may go to their mean; some noise gives it different places to start from.
    backbone: channels and size of one latent; `concat` widens it by itself.
    """

    image_size: int
    factor: int
    backbone: DiMRConfig
    method: str = "crossflow"
    source_noise: float = 0.0
    codec: CodecConfig = field(default_factory=CodecConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    sample: SampleConfig = field(default_factory=lambda: SampleConfig(scale=1.0))

    def __post_init__(self) -> None:
        require_known("method", self.method, METHODS)
        require_weight("source_noise", self.source_noise)
        require_count("factor", self.factor, 2)
        require_count("image_size", self.image_size, 16)
        if self.image_size % self.factor:
            raise ConfigError(
                f"image_size {self.image_size} is no multiple of factor {self.factor}; change one"
            )
        weights, stages = self.loss.scale_weights, self.backbone.stages
        if weights is not None and len(weights) != len(stages):
            raise ConfigError(f"loss.scale_weights has {len(weights)} weights for {len(stages)} stages")

    @property
    def latent(self) -> tuple[int, int, int]:
        """(c, h, w) that x_0 and x_1 share."""
        return (self.backbone.channels, *self.backbone.size)
