"""Everything a depth run is made of, as one frozen record that goes into config.json and comes back."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from cf_encoders import ImageVEConfig
from cf_transformer import DiMRConfig

from cf_apps.depth.scaling import ScalingConfig
from cf_apps.engine.checks import require_known, require_weight
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import FlowConfig, SampleConfig
from cf_apps.engine.records import Record

KLForm = Literal["paper", "released"]


@dataclass(frozen=True)
class DepthLoss(FlowConfig):
    """L = L_FM + reconstruction_weight L_Enc + kl_weight L_KL   (CrossFlow sec. 4.2, 5.3)

    L_Enc: mean squared error of the picture decoded from x_0 ("trained with a reconstruction loss"). kl_form: see
    cf_encoders; the KL is a sum over x_0, so its weight goes with 1 / pixels.
    """

    reconstruction_weight: float = 1.0
    kl_weight: float = 1e-4
    kl_form: KLForm = "paper"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_known("kl_form", self.kl_form, get_args(KLForm))
        require_weight("reconstruction_weight", self.reconstruction_weight)
        require_weight("kl_weight", self.kl_weight)


@dataclass(frozen=True)
class DepthConfig(Record):
    """A depth model and its recipe. Raises ConfigError where the parts do not fit together.

    The backbone says the size, (h, w): the encoder turns RGB pictures of it into one channel of it.

    fourier: the encoder also reads sin(2^k pi x) and cos(2^k pi x) of each channel x in [-1, 1], for each k given
    (Kingma et al. 2021, who found fine values of 8-bit pictures this way). Where depth is told by shading of one per
    cent, an encoder finds it many times sooner; the paper has none.
    """

    image_ve: ImageVEConfig
    backbone: DiMRConfig
    fourier: tuple[int, ...] = ()
    scaling: ScalingConfig = field(default_factory=ScalingConfig)
    loss: DepthLoss = field(default_factory=DepthLoss)
    sample: SampleConfig = field(default_factory=SampleConfig)

    def __post_init__(self) -> None:
        if self.backbone.channels != 1:
            raise ConfigError(
                f"backbone.channels is {self.backbone.channels}; a depth map has 1, so set it to 1"
            )
        if any(k < 0 for k in self.fourier):
            raise ConfigError(f"fourier must be whole numbers, zero or more, got {self.fourier}")
        for name, shape, wanted in (
            ("latent", self.image_ve.latent, (1, *self.size)),
            ("image", self.image_ve.image, (self.channels, *self.size)),
        ):
            if tuple(shape) != wanted:
                raise ConfigError(
                    f"image_ve.{name} is {tuple(shape)}, but fourier and backbone.size ask for {wanted}"
                )
        if not self.image_ve.decoder and self.loss.reconstruction_weight:
            raise ConfigError(
                "image_ve.decoder is off; set it on, or loss.reconstruction_weight=0 (CrossFlow has it)"
            )
        weights = self.loss.scale_weights
        if weights is not None and len(weights) != len(self.backbone.stages):
            raise ConfigError(
                f"loss.scale_weights has {len(weights)} weights for {len(self.backbone.stages)} stages"
            )

    @property
    def channels(self) -> int:
        """What the encoder reads of a pixel: RGB, and a sine and a cosine of each for every k of `fourier`."""
        return 3 * (1 + 2 * len(self.fourier))

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) that pictures and depth maps are stretched to."""
        return self.backbone.size
