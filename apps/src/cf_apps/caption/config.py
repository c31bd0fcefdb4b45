"""Everything the two trainings of captioning are made of, as frozen records that go into config.json and come back.

CrossFlow sec. 5.2 and app. B.4: first a text autoencoder, captions -> latents -> captions, then, with that frozen, the
flow from the latents of pictures to those of captions.
"""

from dataclasses import dataclass, field

from cf_encoders import ImageVEConfig
from cf_encoders.captions import CaptionAutoencoderConfig
from cf_transformer import DiMRConfig

from cf_apps.caption.tokens import TOKENIZERS
from cf_apps.engine.checks import require_count, require_known, require_weight
from cf_apps.engine.codecs import CodecConfig
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.learned_source import LearnedSourceConfig
from cf_apps.engine.records import Record

TARGETS = ("mean", "sample")


@dataclass(frozen=True)
class TextConfig(Record):
    """A text autoencoder.

    autoencoder.decoder_kind: `parallel` writes all words at once, as every method of CrossFlow table 4 does;
    `autoregressive` one after the other, each knowing those before it, so that a latent between two captions is read as
    either of them and not as some words of each.

    tokens: `words`, a word-level vocabulary, or `bpe`, subwords that spell any caption. autoencoder.decoder.vocabulary
    is the most tokens to learn from the captions; a run's config.json has the number that were found.
    replaced: mean share of training tokens replaced by random ones, so that rare words are copied as often as others.
    mixed: while training, z moves up to so far towards that of another caption of the same picture, and still has to be
    read as the first. A flow that hesitates between two true captions ends between them; a decoder that has only seen
    single ones takes some words of each.
    """

    autoencoder: CaptionAutoencoderConfig
    tokens: str = "words"
    replaced: float = 0.0
    mixed: float = 0.0

    def __post_init__(self) -> None:
        require_known("tokens", self.tokens, TOKENIZERS)
        if not 0.0 <= self.mixed <= 0.5:
            raise ConfigError(
                f"mixed must lie in [0, 0.5], got {self.mixed}; beyond the middle it is the other caption"
            )
        if not 0.0 <= self.replaced <= 0.5:
            raise ConfigError(
                f"replaced must lie in [0, 0.5], got {self.replaced}; it is a mean share of tokens"
            )


@dataclass(frozen=True)
class LossConfig(LearnedSourceConfig):
    """L = L_FM (+ kl_weight L_KL + encoder_weight L_Enc + mean_weight L_mean + see_weight L_see, of a learned source)
    (+ decoder_weight L_read)

    All weights but decoder_weight concern `CaptionConfig.image_ve` only: the KL of its q(x_0 | picture), the contrast
    of x_0 with the caption's latent, the regression of its mean on that, and what is read out of its mean.

    decoder_weight: of L_read, which goes on training the run's copy of the text decoder, and nothing else, to read
    latents that the flow has made (reading.py); 0 leaves the decoder as it comes.
    see_weight: of L_see, by which image_ve learns, and the decoder if it does, to read the caption out of x_0's mean.
    decoder_from: the share of the run after which both do so; before, there is no flow to learn from.
    decoder_steps: Euler steps by which those latents are made, one velocity of the backbone each.
    """

    kl_weight: float = 1e-4
    encoder_weight: float = 0.0
    decoder_weight: float = 0.0
    see_weight: float = 0.0
    decoder_from: float = 0.5
    decoder_steps: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("kl_weight", "encoder_weight", "decoder_weight", "see_weight"):
            require_weight(name, getattr(self, name))
        require_count("decoder_steps", self.decoder_steps, 1)
        if not 0.0 <= self.decoder_from < 1.0:
            raise ConfigError(
                f"decoder_from must lie in [0, 1), got {self.decoder_from}; it is a share of the run"
            )


@dataclass(frozen=True)
class CaptionConfig(Record):
    """A captioning model and its recipe. Raises ConfigError where the parts do not fit together.

    text: the run folder of `crossflow caption train-text` whose latents the flow learns to reach. It is needed to
    train; the decoder is then copied into the run.
    image_ve: reads the codec's latent, and its q(x_0 | picture) of the text latent's shape is learned together with the
    flow. None: the codec's latent has that shape and is x_0 itself.
    sigma: of noise that is added to x_0 in either case. Many captions are true of a picture, and noise is all that the
    choice among them can be made of.
    target: x_1 is the `mean` of q(z | caption) or a `sample` of it, standardised.
    redo: the share of a caption's tokens, the least sure ones, that a parallel decoder decides again, knowing the
    others.
    beams: of the search for the likeliest caption that an autoregressive decoder does; 1 is greedy.
    mean, std: of each channel of the text latents, measured when a run starts and kept in its config.json.
    """

    image_size: int
    codec: CodecConfig
    backbone: DiMRConfig
    text: str | None = None
    sigma: float = 0.5
    image_ve: ImageVEConfig | None = None
    target: str = "mean"
    redo: float = 0.0
    beams: int = 1
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    loss: LossConfig = field(default_factory=LossConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)

    def __post_init__(self) -> None:
        require_count("image_size", self.image_size, 1)
        require_count("beams", self.beams, 1)
        require_known("target", self.target, TARGETS)
        require_weight("sigma", self.sigma)
        if not 0.0 <= self.redo <= 1.0:
            raise ConfigError(f"redo must lie in [0, 1], got {self.redo}; it is a share of the tokens")
        scales = self.loss.scale_weights
        if scales is not None and len(scales) != len(self.backbone.stages):
            raise ConfigError(
                f"loss.scale_weights has {len(scales)} weights for {len(self.backbone.stages)} stages"
            )
        if self.image_ve is not None and tuple(self.image_ve.latent) != self.latent:
            raise ConfigError(
                f"image_ve.latent is {self.image_ve.latent}, but the backbone flows {self.latent}"
            )

    @property
    def latent(self) -> tuple[int, int, int]:
        """(c, h, w) of a caption's latent, and of x_0."""
        return (self.backbone.channels, *self.backbone.size)
