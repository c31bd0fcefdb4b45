"""The modules of a text-to-image model, and the two roads they serve: caption -> x_0 and image <-> x_1."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from cf_encoders import (
    CachedLanguageModel,
    DiagonalGaussian,
    ImageCodec,
    LanguageModel,
    TextFeatures,
    TextVE,
    VocabLanguageModel,
    Vocabulary,
    language_model,
)
from cf_encoders.codecs.by_name import IMAGE_CODECS
from cf_encoders.language_models.by_name import LANGUAGE_MODELS
from cf_encoders.tokenizer import SPECIALS
from cf_transformer import CrossAttentionConfig, CrossAttentionDiMR, DiMR, DiMRConfig, DiT, DiTConfig
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from cf_apps.engine.codecs import WITHOUT_PATH as CODECS_WITHOUT_PATH
from cf_apps.engine.codecs import build_codec
from cf_apps.engine.errors import ConfigError
from cf_apps.t2i.baseline import standard_normal
from cf_apps.t2i.config import LanguageConfig, T2IConfig
from cf_apps.t2i.encoder_terms import encoder_parts
from cf_apps.t2i.reader import Reader

SAMPLING_PARTS = ("language", "reader", "text_ve", "backbone")  # the others only train the encoder
BACKBONES = {DiMRConfig: DiMR, DiTConfig: DiT, CrossAttentionConfig: CrossAttentionDiMR}
Velocity = Callable[..., Tensor]  # (x_t, t, is_null) -> v
LARGE = ("t5", "t5-released", "llama")  # language models of billions of parameters, run in bfloat16
WITHOUT_PATH = ("vocab", "minilm", *CODECS_WITHOUT_PATH)  # all others are read from a path


@dataclass(frozen=True)
class T2IModel:
    """A built model. modules: what is trained and saved, by name; language and codec may be frozen and outside it."""

    config: T2IConfig
    language: LanguageModel
    codec: ImageCodec
    modules: nn.ModuleDict

    def describe(self) -> dict[str, Any]:
        """What `build` needs to make the same modules again."""
        words = (
            list(self.language.vocabulary.words) if isinstance(self.language, VocabLanguageModel) else None
        )
        return {"name": "t2i", "config": self.config.to_dict(), "vocabulary": words}

    def encode_text(self, captions: Sequence[str]) -> DiagonalGaussian:
        """q(x_0 | caption), of the latent's shape; the baseline's says nothing of the caption."""
        return self.source(self.read(captions))

    def read(self, captions: Sequence[str] | TextFeatures) -> TextFeatures:
        """Token features, as the text encoder or the baseline's cross-attention takes them.

        captions: or what the language model makes of them, where that is known already.
        """
        features = captions if isinstance(captions, TextFeatures) else self.language(captions)
        return self.modules["reader"](features) if "reader" in self.modules else features

    def source(self, text: TextFeatures) -> DiagonalGaussian:
        """q(x_0 | text), of the latent's shape; N(0, I) for the baseline."""
        if "text_ve" not in self.modules:
            return standard_normal(len(text.tokens), self.config.latent, self.device)
        return self.modules["text_ve"](text.tokens, text.mask)

    def velocity(self, captions: Sequence[str] | None = None) -> Velocity:
        """v(x_t, t, is_null) for rows of these captions. Only the baseline reads them, and needs them (ConfigError)."""
        backbone = self.backbone
        if not isinstance(backbone, CrossAttentionDiMR):
            return backbone
        if captions is None:
            raise ConfigError(
                "this model starts from noise and reads captions on the way; between captions, or from a given x_0, "
                "only one whose source is the text can draw"
            )
        text = self.read(captions)
        return backbone.given(text.tokens, text.mask)

    @torch.no_grad()
    def encode_images(self, images: UInt8[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        """x_1 of bytes."""
        return self.codec.encode(images.to(self.device).float() / 255)

    @property
    def backbone(self) -> DiMR | DiT | CrossAttentionDiMR:
        """The velocity network v(x_t, t, is_null); the baseline's wants the text as well."""
        return cast("DiMR | DiT | CrossAttentionDiMR", self.modules["backbone"])

    @property
    def device(self) -> torch.device:
        return next(self.modules.parameters()).device


def build(
    config: T2IConfig,
    vocabulary: Vocabulary | None,
    device: torch.device,
    seed: int = 0,
    language: LanguageModel | None = None,
) -> T2IModel:
    """Fresh modules on `device`, their initial weights drawn from `seed`. The caller's generators stay as they were.

    vocabulary: needed where config.language is `vocab`. language: in place of the config's own, which is not loaded
    then. Raises ConfigError for parts that do not fit.
    """
    require_paths(config, without_language=language is not None)
    codec = build_codec(config.codec, device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        language = _language(config, vocabulary, device) if language is None else language
        require_fit(config, language, codec)  # now: drawing a billion weights takes a while
        modules = nn.ModuleDict(
            _text_side(config) | {"backbone": build_backbone(config)} | encoder_parts(config)
        )
    if isinstance(language, VocabLanguageModel):
        modules["language"] = language
    return T2IModel(config, language, codec, modules.to(device))


def build_backbone(config: T2IConfig) -> DiMR | DiT | CrossAttentionDiMR:
    """The fresh velocity network of a config."""
    return BACKBONES[type(config.backbone)](config.backbone)


def _text_side(config: T2IConfig) -> dict[str, nn.Module]:
    """What stands between the language model and the flow."""
    if config.text_ve is not None:
        return {"text_ve": TextVE(config.text_ve)}
    return {} if config.reader is None else {"reader": Reader(config.reader)}


def rebuild(description: dict[str, Any], device: torch.device) -> T2IModel:
    """The model that `describe` described, with fresh weights."""
    words = description["vocabulary"]
    vocabulary = None if words is None else Vocabulary(words[len(SPECIALS) :])
    return build(T2IConfig.from_dict(description["config"]), vocabulary, device)


def _language(config: T2IConfig, vocabulary: Vocabulary | None, device: torch.device) -> LanguageModel:
    if config.language.name != "vocab":
        return CachedLanguageModel(frozen_language(config.language, device), device, padding=padding(config))
    if vocabulary is None:
        raise ConfigError("language model 'vocab' needs a vocabulary; train builds one from the captions")
    return VocabLanguageModel(vocabulary, config.language.width, config.language.max_tokens)


def frozen_language(config: LanguageConfig, device: torch.device) -> LanguageModel:
    """A language model that is not trained, on its device. Raises ConfigError where it cannot be loaded."""
    name = config.name
    dtype = torch.bfloat16 if name in LARGE else torch.float32
    try:
        frozen = language_model(name, config.path, max_tokens=config.max_tokens, dtype=dtype)
    except (ValueError, ImportError, OSError) as error:
        raise ConfigError(f"language model {name}: {error}") from error
    if isinstance(frozen, nn.Module):
        frozen.to(device)
    return frozen


def padding(config: T2IConfig) -> str:
    """What becomes of the features of padding: the public code's encoder looks at them, the others do not."""
    return "kept" if config.text_ve is not None and config.text_ve.kind == "released" else "left out"


def require_fit(config: T2IConfig, language: LanguageModel | None, codec: ImageCodec) -> None:
    """Raise ConfigError unless the frozen parts have the sizes that the trained ones are made for.

    language: None where it is trained and not there yet.
    """
    latent = tuple(codec.latent_shape(config.image_size, config.image_size))
    if latent != config.latent:
        raise ConfigError(
            f"codec {config.codec.name} turns {config.image_size} px into {latent}, but the model flows {config.latent}"
        )
    part, width = _reads(config)
    if language is not None and language.width != width:
        raise ConfigError(f"{config.language.name} gives tokens {language.width} wide, {part} is {width}")


def _reads(config: T2IConfig) -> tuple[str, int]:
    """The key that says how wide the tokens are that the language model must give, and its value."""
    if config.text_ve is not None:
        return "text_ve.token_width", config.text_ve.token_width
    if config.reader is not None:
        return "reader.token_width", config.reader.token_width
    assert isinstance(config.backbone, CrossAttentionConfig)
    return "backbone.context_width", config.backbone.context_width


def require_paths(config: T2IConfig, without_language: bool = False) -> None:
    """Raise ConfigError naming the frozen parts whose weights nobody said where to find."""
    chosen = {"language": (config.language, LANGUAGE_MODELS), "codec": (config.codec, IMAGE_CODECS)}
    names = {
        part: choice.name
        for part, (choice, known) in chosen.items()
        if choice.path is None
        and choice.name in known
        and choice.name not in WITHOUT_PATH
        and not (without_language and part == "language")
    }
    if names:
        parts = " and ".join(f"{part} {name}" for part, name in names.items())
        training, importing = (
            " ".join(option.format(part) for part in names) for option in ("--set {}.path=PATH", "--{} PATH")
        )
        raise ConfigError(
            f"{parts}: no path to the weights, a folder or a hub id; give {training} to train, {importing} to import"
        )
