"""Everything a text-to-image run is made of, as one frozen record that goes into config.json and comes back."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from cf_encoders import ImageTowerConfig, TextVEConfig
from cf_flowcore import LogitNormal, Mixture, Power, Stratified, Uniform
from cf_flowcore.tableaus import TABLEAUS
from cf_transformer import DiMRConfig, DiTConfig

from cf_apps.engine.errors import ConfigError

TIMES = {
    # name          density of t while training
    "uniform": Uniform(),  # the paper's "vanilla flow matching"
    "logit_normal": LogitNormal(),  # the public code's
    "early": Stratified(Mixture(Power(3.0), Uniform(), 0.7)),  # which image is decided near t = 0
}
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
        _require_count("language.width", self.width, 1)
        _require_count("language.max_tokens", self.max_tokens, 2)  # <bos> and <eos> at least


@dataclass(frozen=True)
class CodecConfig:
    """The image codec, frozen. path: a folder of weights; None takes those that ship with cf-apps.

    For `patch-dct`: patch, keep and whitening as in `PatchDCTCodec.fitted`; mean and std are measured on the training
    pictures when a run starts, and kept in its config.json.
    """

    name: str = "pixels"
    path: str | None = None
    patch: int = 4
    keep: int = 24
    whitening: float = 0.5
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True)
class LossConfig:
    """L = L_FM + encoder_weight L_Enc + kl_weight L_KL (+ mean_weight L_mean)   (CrossFlow section 4.2)

    mean_weight: of a term that the paper does not have. It regresses the source's mean on x_1, each channel relative to
    its variance, so that the mean becomes a blurred image of what the caption says and the flow has a short way. That
    teaches the encoder fast, but leaves little of a caption that leaves much open: a blur of everything it allows.
    mean_until: the share of the run over which that weight falls to zero, in a straight line; None keeps it.

    kl_form: `paper` is the standard KL, `released` the sixth power in the mean. Both are sums over the latent, so
    the weight that keeps sigma healthy goes with 1 / latent size. null_rate: the share of samples that train the
    indicator. times: the density of t, one of `TIMES`. scale_weights: of the backbone's stages in L_FM, low to high;
    None is DiMR's halving. DiMR's targets k avgpool_k(v) amplify smooth content by k, its loss by k^2: with a large
    patch (k = 8) the low stages can make up most of the sum; weights near 1 / k^2 even that out.
    """

    encoder_weight: float = 1.0
    kl_weight: float = 1e-4
    mean_weight: float = 0.0
    mean_until: float | None = None
    kl_form: KLForm = "paper"
    null_rate: float = 0.1
    times: str = "uniform"
    sigma_min: float = 1e-5
    scale_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        _require_known("times", self.times, TIMES)
        _require_known("kl_form", self.kl_form, get_args(KLForm))
        if not 0.0 <= self.null_rate < 1.0:
            raise ConfigError(f"null_rate must lie in [0, 1), got {self.null_rate}; CrossFlow uses 0.1")
        for name in ("encoder_weight", "kl_weight", "mean_weight"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be zero or more, got {getattr(self, name)}")
        if self.mean_until is not None and not 0.0 < self.mean_until <= 1.0:
            raise ConfigError(f"mean_until must lie in (0, 1] or be null, got {self.mean_until}")

    def mean_weight_at(self, progress: float) -> float:
        """mean_weight at a share of the run, in [0, 1]."""
        return self.mean_weight * (
            1.0 if self.mean_until is None else max(0.0, 1.0 - progress / self.mean_until)
        )


@dataclass(frozen=True)
class SampleConfig:
    """How pictures are drawn. scale 1 is unguided; `steps` is ignored by adaptive solvers."""

    scale: float = 3.0
    steps: int = 25
    solver: str = "euler"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        _require_known("solver", self.solver, TABLEAUS)
        _require_count("steps", self.steps, 1)
        if not math.isfinite(self.scale):
            raise ConfigError(f"scale must be a finite number, got {self.scale}; 1 is unguided")
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(
                f"temperature must be zero or more, got {self.temperature}; 1 is what training saw"
            )


@dataclass(frozen=True)
class T2IConfig:
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
        _require_count("image_size", self.image_size, 1)
        latent = (self.backbone.channels, *self.backbone.size)
        scales = self.loss.scale_weights
        stages = len(self.backbone.stages) if isinstance(self.backbone, DiMRConfig) else 1
        if scales is not None and len(scales) != stages:
            raise ConfigError(f"loss.scale_weights has {len(scales)} weights for {stages} stages")
        _require_known("tower_sees", self.tower_sees, get_args(TowerInput))
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

    def to_dict(self) -> dict[str, Any]:
        """The config as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "T2IConfig":
        """The inverse of `to_dict`; an unknown key is a ConfigError that lists the known ones."""
        _require_fields(cls, values)
        parts: dict[str, Any] = dict(values)
        for name, part in (
            ("text_ve", TextVEConfig),
            ("backbone", DiTConfig if "d_model" in values["backbone"] else DiMRConfig),
            ("image_tower", ImageTowerConfig),
        ):
            parts[name] = (
                None if values[name] is None and name == "image_tower" else part.from_dict(values[name])
            )
        for name, part in (
            ("language", LanguageConfig),
            ("codec", CodecConfig),
            ("loss", LossConfig),
            ("sample", SampleConfig),
        ):
            _require_fields(part, values[name])
            given: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in values[name].items()
            }
            parts[name] = part(**given)
        return cls(**parts)


def _require_fields(cls: type, values: Mapping[str, Any]) -> None:
    known = [f.name for f in fields(cls)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(f"unknown {cls.__name__} keys {unknown}; known: {', '.join(known)}")


def _require_count(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} must be a whole number, {least} or more, got {value!r}")


def _require_known(name: str, value: str, known: Mapping[str, Any] | tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"unknown {name} {value!r}; known: {', '.join(known)}")
