"""Everything a text-to-image run is made of, as one frozen record that goes into config.json and comes back."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from cf_encoders import ImageTowerConfig, TextTowerConfig, TextVEConfig
from cf_encoders.captions import FeatureDecoderConfig
from cf_transformer import CrossAttentionConfig, DiMRConfig, DiTConfig

from cf_apps.engine.checks import require_count, require_known, require_weight
from cf_apps.engine.codecs import CodecConfig
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.learned_source import LearnedSourceConfig
from cf_apps.engine.records import Record
from cf_apps.t2i.reader import ReaderConfig
from cf_apps.t2i.strategy import STRATEGIES, Stage, stage_at

KLForm = Literal["paper", "released"]
TowerInput = Literal["latent", "image"]
EncoderLoss = Literal["image-text", "text-text", "reconstruction", "none"]


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
class LossConfig(LearnedSourceConfig):
    """L = L_FM + encoder_weight L_Enc + kl_weight L_KL (+ mean_weight L_mean)   (CrossFlow section 4.2)

    encoder: which L_Enc (CrossFlow Table 3b), see encoder_terms.py. `none` trains the encoder by L_FM and L_KL alone.

    kl_form: `paper` is the standard KL, `released` the sixth power in the mean. Both are sums over the latent, so
    the weight that keeps sigma healthy goes with 1 / latent size.
    """

    encoder: EncoderLoss = "image-text"
    encoder_weight: float = 1.0
    kl_weight: float = 1e-4
    kl_form: KLForm = "paper"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_known("loss.encoder", self.encoder, get_args(EncoderLoss))
        require_known("kl_form", self.kl_form, get_args(KLForm))
        for name in ("encoder_weight", "kl_weight"):
            require_weight(name, getattr(self, name))

    @property
    def teaches_encoder(self) -> bool:
        """Whether the encoder's own losses tell captions apart: L_KL alone does not."""
        return bool(self.mean_weight) or (self.encoder != "none" and bool(self.encoder_weight))


@dataclass(frozen=True)
class T2IConfig(Record):
    """A text-to-image model and its recipe. Raises ConfigError where the parts do not fit together.

    text_ve, backbone: the text encoder and the network that carries its x_0 to x_1. With text_ve null the backbone
    must be a CrossAttentionDiMR: the paper's baseline (Table 1), which starts from noise and reads the tokens.
    reader: the baseline's layers over the tokens of a language model that knows no word order.

    image_tower: the image side of loss.encoder `image-text`. None contrasts x_0 with x_1 itself, which pulls the source
    towards the image; it fits latents that are small and whitened, such as those of `patch-dct`.
    text_tower, text_decoder: what `text-text` and `reconstruction` compare with; None takes the usual size.

    strategy: the order of training (Table 3e), one of `STRATEGIES`. encoder_share: how much of the run the text encoder
    gets for itself in the two-stage ones.
    init: a run to start from: of the same shape, or of half the resolution (a power of two), which is grown.
    """

    image_size: int
    language: LanguageConfig
    codec: CodecConfig
    text_ve: TextVEConfig | None
    backbone: DiMRConfig | DiTConfig | CrossAttentionConfig
    image_tower: ImageTowerConfig | None
    tower_sees: TowerInput = "latent"
    loss: LossConfig = field(default_factory=LossConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    strategy: str = "joint"
    encoder_share: float = 0.25
    text_tower: TextTowerConfig | None = None
    text_decoder: FeatureDecoderConfig | None = None
    reader: ReaderConfig | None = None
    init: str | None = None

    def __post_init__(self) -> None:
        require_count("image_size", self.image_size, 1)
        require_known("tower_sees", self.tower_sees, get_args(TowerInput))
        require_known("strategy", self.strategy, STRATEGIES)
        scales = self.loss.scale_weights
        stages = len(self.network.stages) if isinstance(self.network, DiMRConfig) else 1
        if scales is not None and len(scales) != stages:
            raise ConfigError(f"loss.scale_weights has {len(scales)} weights for {stages} stages")
        if self.image_tower is None and self.tower_sees != "latent":
            raise ConfigError(
                f"tower_sees is {self.tower_sees!r}, but image_tower is null; set tower_sees=latent"
            )
        if self.text_ve is None:
            _check_baseline(self)
        else:
            _check_encoder(self, self.text_ve)

    @property
    def from_noise(self) -> bool:
        """Whether x_0 is noise and the text enters by cross-attention: the baseline."""
        return self.text_ve is None

    @property
    def network(self) -> DiMRConfig | DiTConfig:
        """The backbone, or the DiMR inside it."""
        return self.backbone.dimr if isinstance(self.backbone, CrossAttentionConfig) else self.backbone

    @property
    def latent(self) -> tuple[int, int, int]:
        """(c, h, w) that x_0 and x_1 share."""
        return (self.network.channels, *self.network.size)

    @property
    def needs_images(self) -> bool:
        """Whether training looks at the pictures beside their latents."""
        return self.tower_sees == "image" and self.loss.encoder == "image-text"

    def stage_at(self, progress: float) -> Stage:
        """What is trained at a share of the run, in [0, 1]."""
        return stage_at(self.strategy, self.encoder_share, progress)


def _check_baseline(config: T2IConfig) -> None:
    """Raise ConfigError unless text can enter by cross-attention and nothing asks for an encoder."""
    backbone, loss = config.backbone, config.loss
    if not isinstance(backbone, CrossAttentionConfig):
        raise ConfigError(
            "text_ve is null, so the text must enter by cross-attention: the backbone needs `dimr` and `context_width`"
        )
    width = config.language.width if config.reader is None else config.reader.width
    if backbone.context_width != width:
        raise ConfigError(
            f"the backbone reads tokens {backbone.context_width} wide, it gets {width}; set backbone.context_width"
        )
    reader = config.reader
    if reader is not None and reader.max_tokens < config.language.max_tokens:
        raise ConfigError(
            f"reader reads {reader.max_tokens} tokens, the language model gives {config.language.max_tokens}; "
            "raise reader.max_tokens"
        )
    if loss.encoder != "none" or loss.kl_weight or loss.mean_weight or config.strategy != "joint":
        raise ConfigError(
            "the baseline starts from noise and has no encoder to train: set loss.encoder=none, loss.kl_weight=0, "
            "loss.mean_weight=0 and strategy=joint"
        )


def _check_encoder(config: T2IConfig, text_ve: TextVEConfig) -> None:
    """Raise ConfigError unless the text encoder and what trains it fit the backbone and the language model."""
    if isinstance(config.backbone, CrossAttentionConfig) or config.reader is not None:
        raise ConfigError(
            "cross-attention and its reader are the baseline's, which has no encoder: set text_ve=null"
        )
    shapes = {"text_ve": text_ve, "image_tower": config.image_tower, "text_tower": config.text_tower}
    for part, own in (shapes | {"text_decoder": config.text_decoder}).items():
        if own is not None and tuple(own.latent) != config.latent:
            raise ConfigError(f"{part}.latent is {tuple(own.latent)}, but the backbone flows {config.latent}")
    for part, own in {"text_tower": config.text_tower, "text_decoder": config.text_decoder}.items():
        if own is not None and own.token_width != text_ve.token_width:
            raise ConfigError(
                f"{part}.token_width is {own.token_width}, but text_ve.token_width {text_ve.token_width}"
            )
    tokens = config.language.max_tokens
    if text_ve.max_tokens < tokens:
        raise ConfigError(
            f"text_ve reads {text_ve.max_tokens} tokens, the language model gives {tokens}; raise text_ve.max_tokens"
        )
    if config.text_decoder is not None and config.text_decoder.max_tokens != tokens:
        raise ConfigError(
            f"text_decoder writes {config.text_decoder.max_tokens} tokens, the language model gives {tokens}; "
            f"set text_decoder.max_tokens={tokens}"
        )
    if not 0.0 < config.encoder_share < 1.0:
        raise ConfigError(f"encoder_share must lie between 0 and 1, got {config.encoder_share}")
    if "encoder" in STRATEGIES[config.strategy] and not config.loss.teaches_encoder:
        raise ConfigError(
            f"strategy {config.strategy} trains the encoder by its own losses first, but there is none: "
            "choose a loss.encoder with a weight"
        )
