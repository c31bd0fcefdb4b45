"""The modules of a text-to-image model, and the two roads they serve: caption -> x_0 and image <-> x_1."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from cf_encoders import (
    CachedLanguageModel,
    DiagonalGaussian,
    ImageCodec,
    ImageTower,
    LanguageModel,
    LogScale,
    TextVE,
    VocabLanguageModel,
    Vocabulary,
    language_model,
)
from cf_encoders.codecs.by_name import IMAGE_CODECS
from cf_encoders.language_models.by_name import LANGUAGE_MODELS
from cf_encoders.tokenizer import SPECIALS
from cf_transformer import DiMR, DiMRConfig, DiT
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from cf_apps.engine.codecs import WITHOUT_PATH as CODECS_WITHOUT_PATH
from cf_apps.engine.codecs import build_codec
from cf_apps.engine.errors import ConfigError
from cf_apps.t2i.config import T2IConfig

SAMPLING_PARTS = ("language", "text_ve", "backbone")  # the image tower only trains the encoder
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
        """q(x_0 | caption), of the latent's shape."""
        features = self.language(captions)
        return self.modules["text_ve"](features.tokens, features.mask)

    @torch.no_grad()
    def encode_images(self, images: UInt8[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        """x_1 of bytes."""
        return self.codec.encode(images.to(self.device).float() / 255)

    @property
    def backbone(self) -> DiMR | DiT:
        """The velocity network v(x_t, t, is_null)."""
        return cast("DiMR | DiT", self.modules["backbone"])

    @property
    def device(self) -> torch.device:
        return next(self.modules.parameters()).device


def build(config: T2IConfig, vocabulary: Vocabulary | None, device: torch.device, seed: int = 0) -> T2IModel:
    """Fresh modules on `device`, their initial weights drawn from `seed`. The caller's generators stay as they were.

    vocabulary: needed where config.language is `vocab`. Raises ConfigError for parts that do not fit.
    """
    _require_paths(config)
    codec = build_codec(config.codec, device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        language = _language(config, vocabulary, device)
        _require_fit(config, language, codec)  # now: drawing a billion weights takes a while
        modules = nn.ModuleDict(
            {
                "text_ve": TextVE(config.text_ve),
                "backbone": DiMR(config.backbone)
                if isinstance(config.backbone, DiMRConfig)
                else DiT(config.backbone),
                "image_tower": nn.Identity()
                if config.image_tower is None
                else ImageTower(config.image_tower),
                "log_scale": LogScale(),
            }
        )
    if isinstance(language, VocabLanguageModel):
        modules["language"] = language
    return T2IModel(config, language, codec, modules.to(device))


def rebuild(description: dict[str, Any], device: torch.device) -> T2IModel:
    """The model that `describe` described, with fresh weights."""
    words = description["vocabulary"]
    vocabulary = None if words is None else Vocabulary(words[len(SPECIALS) :])
    return build(T2IConfig.from_dict(description["config"]), vocabulary, device)


def _language(config: T2IConfig, vocabulary: Vocabulary | None, device: torch.device) -> LanguageModel:
    name, max_tokens = config.language.name, config.language.max_tokens
    if name == "vocab":
        if vocabulary is None:
            raise ConfigError("language model 'vocab' needs a vocabulary; train builds one from the captions")
        return VocabLanguageModel(vocabulary, config.language.width, max_tokens)
    dtype = torch.bfloat16 if name in LARGE else torch.float32
    try:
        frozen = language_model(name, config.language.path, max_tokens=max_tokens, dtype=dtype)
    except (ValueError, ImportError, OSError) as error:
        raise ConfigError(f"language model {name}: {error}") from error
    if isinstance(frozen, nn.Module):
        frozen.to(device)
    # the public code's encoder looks at what the language model makes of padding, the others do not
    padding = "kept" if config.text_ve.kind == "released" else "left out"
    return CachedLanguageModel(frozen, device, padding=padding)


def _require_fit(config: T2IConfig, language: LanguageModel, codec: ImageCodec) -> None:
    """Raise ConfigError unless the frozen parts have the sizes that the trained ones are made for."""
    latent = tuple(codec.latent_shape(config.image_size, config.image_size))
    if latent != config.latent:
        raise ConfigError(
            f"codec {config.codec.name} turns {config.image_size} px into {latent}, but the model flows {config.latent}"
        )
    if language.width != config.text_ve.token_width:
        raise ConfigError(
            f"{config.language.name} gives tokens {language.width} wide, text_ve.token_width is "
            f"{config.text_ve.token_width}"
        )


def _require_paths(config: T2IConfig) -> None:
    """Raise ConfigError naming the frozen parts whose weights nobody said where to find."""
    chosen = {"language": (config.language, LANGUAGE_MODELS), "codec": (config.codec, IMAGE_CODECS)}
    names = {
        part: choice.name
        for part, (choice, known) in chosen.items()
        if choice.path is None and choice.name in known and choice.name not in WITHOUT_PATH
    }
    if names:
        parts = " and ".join(f"{part} {name}" for part, name in names.items())
        training, importing = (
            " ".join(option.format(part) for part in names) for option in ("--set {}.path=PATH", "--{} PATH")
        )
        raise ConfigError(
            f"{parts}: no path to the weights, a folder or a hub id; give {training} to train, {importing} to import"
        )
