"""The modules of a text-to-image model, and the two roads they serve: caption -> x_0 and image <-> x_1."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import torch
from cf_encoders import (
    CachedLanguageModel,
    DiagonalGaussian,
    ImageCodec,
    ImageTower,
    LanguageModel,
    LogScale,
    PatchDCTCodec,
    TextVE,
    VocabLanguageModel,
    Vocabulary,
    image_codec,
    language_model,
)
from cf_encoders.tokenizer import SPECIALS
from cf_transformer import DiMR
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from cf_apps.engine.errors import ConfigError
from cf_apps.t2i.config import CodecConfig, LanguageConfig, T2IConfig

SAMPLING_PARTS = ("language", "text_ve", "backbone")  # the image tower only trains the encoder
BUNDLED_CODECS = ("taef2",)  # their weights ship with cf-apps


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
        return {"config": self.config.to_dict(), "vocabulary": words}

    def encode_text(self, captions: Sequence[str]) -> DiagonalGaussian:
        """q(x_0 | caption), of the latent's shape."""
        features = self.language(captions)
        tokens, mask = features.tokens, features.mask
        if self.config.text_ve.kind == "compact" and mask.device.type == "cpu":
            # padding past the longest caption is work without effect; a GPU is better off with one fixed shape
            longest = int(mask.sum(1).amax())
            tokens, mask = tokens[:, :longest], mask[:, :longest]
        return self.modules["text_ve"](tokens, mask)

    @torch.no_grad()
    def encode_images(self, images: UInt8[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        """x_1 of bytes."""
        return self.codec.encode(images.to(self.device).float() / 255)

    @property
    def backbone(self) -> DiMR:
        """The velocity network v(x_t, t, is_null)."""
        return cast(DiMR, self.modules["backbone"])

    @property
    def device(self) -> torch.device:
        return next(self.modules.parameters()).device


def build(config: T2IConfig, vocabulary: Vocabulary | None, device: torch.device, seed: int = 0) -> T2IModel:
    """Fresh modules on `device`, their initial weights drawn from `seed`. The caller's generators stay as they were.

    vocabulary: needed where config.language is `vocab`. Raises ConfigError for parts that do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        language = _language(config.language, vocabulary, device)
        modules = nn.ModuleDict(
            {
                "text_ve": TextVE(config.text_ve),
                "backbone": DiMR(config.backbone),
                "image_tower": nn.Identity()
                if config.image_tower is None
                else ImageTower(config.image_tower),
                "log_scale": LogScale(),
            }
        )
    if isinstance(language, VocabLanguageModel):
        modules["language"] = language
    codec = _codec(config.codec, device)
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
    return T2IModel(config, language, codec, modules.to(device))


def rebuild(description: dict[str, Any], device: torch.device) -> T2IModel:
    """The model that `describe` described, with fresh weights."""
    words = description["vocabulary"]
    vocabulary = None if words is None else Vocabulary(words[len(SPECIALS) :])
    return build(T2IConfig.from_dict(description["config"]), vocabulary, device)


def _language(config: LanguageConfig, vocabulary: Vocabulary | None, device: torch.device) -> LanguageModel:
    if config.name == "vocab":
        if vocabulary is None:
            raise ConfigError("language model 'vocab' needs a vocabulary; train builds one from the captions")
        return VocabLanguageModel(vocabulary, config.width, config.max_tokens)
    try:
        frozen = language_model(config.name, config.path, max_tokens=config.max_tokens)
    except (ValueError, ImportError, OSError) as error:
        raise ConfigError(f"language model {config.name}: {error}") from error
    if isinstance(frozen, nn.Module):
        frozen.to(device)
    return CachedLanguageModel(frozen, device)


def fitted(config: CodecConfig, images: UInt8[Tensor, "b 3 H W"]) -> CodecConfig:
    """The codec's config with the constants that these pictures ask for, where it has any."""
    if config.name != "patch-dct" or config.mean is not None:
        return config
    codec = PatchDCTCodec.fitted(images.float() / 255, config.patch, config.keep, whitening=config.whitening)
    mean, std = codec.mean.flatten().tolist(), codec.std.flatten().tolist()
    return replace(config, mean=tuple(mean), std=tuple(std))


def _codec(config: CodecConfig, device: torch.device) -> ImageCodec:
    if config.name == "patch-dct":
        return PatchDCTCodec(config.patch, config.keep, config.mean, config.std).to(device)
    path: str | Path | None = config.path
    if path is None and config.name in BUNDLED_CODECS:
        path = Path(str(files("cf_apps") / "assets" / config.name))
    try:
        codec = image_codec(config.name, path)
    except (ValueError, ImportError, OSError) as error:
        raise ConfigError(f"image codec {config.name}: {error}") from error
    if isinstance(codec, nn.Module):
        codec.to(device)
    return codec
