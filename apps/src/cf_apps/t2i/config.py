"""Everything a text-to-image run is made of, as one frozen record that goes into config.json and comes back."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from cf_encoders import ImageTowerConfig, TextVEConfig
from cf_transformer import DiMRConfig, DiTConfig

from cf_apps.engine.checks import require_count, require_known, require_weight
from cf_apps.engine.codecs import CodecConfig
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import FlowConfig, SampleConfig
from cf_apps.engine.records import Record

KLForm = Literal["paper", "released"]
TowerInput = Literal["latent", "image"]


@dataclass(frozen=True)
class LanguageConfig:
    """The language model. `vocab` is trained with the model; the others are frozen, read from `path`."""

    name: str = "vocab"
    width: int = 128
    max_tokens: int = 24
    path: str | None = None

    def __post_init__(self) -> None:
        require_count("language.width", self.width, 1)
        require_count("language.max_tokens", self.max_tokens, 2)  # <bos> and <eos> at least


@dataclass(frozen=True)
class LossConfig(FlowConfig):
    """L = L_FM + encoder_weight L_Enc + kl_weight L_KL (+ mean_weight L_mean)   (CrossFlow section 4.2)

    mean_weight: of a term that the paper does not have. It regresses the source's mean on x_1, each channel relative to
    its variance, so that the mean becomes a blurred image of what the caption says and the flow has a short way. That
    teaches the encoder fast, but leaves little of a caption that leaves much open: a blur of everything it allows.
    mean_until: the share of the run over which that weight falls to zero, in a straight line; None keeps it.

    kl_form: `paper` is the standard KL, `released` the sixth power in the mean. Both are sums over the latent, so
    the weight that keeps sigma healthy goes with 1 / latent size.
    """

    encoder_weight: float = 1.0
    kl_weight: float = 1e-4
    mean_weight: float = 0.0
    mean_until: float | None = None
    kl_form: KLForm = "paper"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_known("kl_form", self.kl_form, get_args(KLForm))
        for name in ("encoder_weight", "kl_weight", "mean_weight"):
            require_weight(name, getattr(self, name))
        if self.mean_until is not None and not 0.0 < self.mean_until <= 1.0:
            raise ConfigError(f"mean_until must lie in (0, 1] or be null, got {self.mean_until}")

    def mean_weight_at(self, progress: float) -> float:
        """mean_weight at a share of the run, in [0, 1]."""
        return self.mean_weight * (
            1.0 if self.mean_until is None else max(0.0, 1.0 - progress / self.mean_until)
        )


@dataclass(frozen=True)
class T2IConfig(Record):
    """A text-to-image model and its recipe. Raises ConfigError where the parts do not fit together.

    image_tower: the image side of L_Enc. None contrasts x_0 with x_1 itself, which pulls the source towards the image;
    it fits latents that are small and whitened, such as those of `patch-dct`.
    """

    image_size: int
    language: LanguageConfig
    codec: CodecConfig
    text_ve: TextVEConfig
    backbone: DiMRConfig | DiTConfig
    image_tower: ImageTowerConfig | None
    tower_sees: TowerInput = "latent"
    loss: LossConfig = field(default_factory=LossConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)

    def __post_init__(self) -> None:
        require_count("image_size", self.image_size, 1)
        latent = (self.backbone.channels, *self.backbone.size)
        scales = self.loss.scale_weights
        stages = len(self.backbone.stages) if isinstance(self.backbone, DiMRConfig) else 1
        if scales is not None and len(scales) != stages:
            raise ConfigError(f"loss.scale_weights has {len(scales)} weights for {stages} stages")
        require_known("tower_sees", self.tower_sees, get_args(TowerInput))
        if self.image_tower is None and self.tower_sees != "latent":
            raise ConfigError(
                f"tower_sees is {self.tower_sees!r}, but image_tower is null; set tower_sees=latent"
            )
        tower = latent if self.image_tower is None else self.image_tower.latent
        for part, shape in (("text_ve", self.text_ve.latent), ("image_tower", tower)):
            if tuple(shape) != latent:
                raise ConfigError(f"{part}.latent is {tuple(shape)}, but the backbone flows {latent}")
        if self.text_ve.max_tokens < self.language.max_tokens:
            raise ConfigError(
                f"text_ve reads {self.text_ve.max_tokens} tokens, the language model gives "
                f"{self.language.max_tokens}; raise text_ve.max_tokens"
            )

    @property
    def latent(self) -> tuple[int, int, int]:
        """(c, h, w) that x_0 and x_1 share."""
        return (self.backbone.channels, *self.backbone.size)
