"""Training from shards: what must agree between them and a config, and what stands in for a language model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cf_encoders import ImageCodec, LanguageModel, TextFeatures

from cf_apps.data.shards.reading import Shards, open_shards
from cf_apps.engine.errors import ConfigError
from cf_apps.t2i.config import T2IConfig
from cf_apps.t2i.extract.frozen import codec_fingerprint
from cf_apps.t2i.model import padding


@dataclass(frozen=True)
class StoredLanguage:
    """In place of a language model whose features were kept: it has the sizes, and an error for every new caption."""

    name: str
    width: int
    max_tokens: int
    folder: Path

    def __call__(self, captions: Sequence[str]) -> TextFeatures:
        raise ConfigError(
            f"the language model {self.name} is not loaded while training from {self.folder}; captions of your own "
            "are read by the finished run"
        )

    def too_long(self, captions: Sequence[str]) -> list[int]:
        """None that are known: extraction counted them, and said so."""
        return []


def from_shards(config: T2IConfig, folder: Path) -> tuple[Shards, T2IConfig, LanguageModel | None]:
    """The training side, the config with what it takes from them, and what stands in for a frozen language model.

    The config takes the paths of the frozen parts where it has none, and the codec's measured constants.
    Raises DataError for shards that cannot be read, ConfigError where they were made for another model.
    """
    shards = open_shards(folder)
    plan = shards.manifest.plan
    _require_agreement(config, shards)
    codec = replace(config.codec, path=config.codec.path or plan.codec["path"])
    if codec.mean is None and plan.codec["mean"] is not None:
        codec = replace(codec, mean=tuple(plan.codec["mean"]), std=tuple(plan.codec["std"]))
    language = replace(config.language, path=config.language.path or plan.language["path"])
    stored = StoredLanguage(language.name, plan.width, plan.max_tokens, folder) if plan.width else None
    return shards, replace(config, codec=codec, language=language), stored


def _require_agreement(config: T2IConfig, shards: Shards) -> None:
    """Raise ConfigError naming the first setting that the shards were made with otherwise, and the key to change."""
    plan, folder = shards.manifest.plan, shards.folder
    here: Mapping[str, Any] = {"image_size": config.image_size, "latent": tuple(config.latent)}
    there: Mapping[str, Any] = {"image_size": plan.image_size, "latent": tuple(plan.latent)}
    if plan.width:
        here |= {
            f"language.{name}": getattr(config.language, name) for name in ("name", "width", "max_tokens")
        }
        here |= {"padding": padding(config)}
        there |= {f"language.{name}": plan.language[name] for name in ("name", "width", "max_tokens")}
        there |= {"padding": plan.language["padding"]}
    elif config.language.name != plan.language["name"]:
        here, there = {"language.name": config.language.name}, {"language.name": plan.language["name"]}
    here |= {f"codec.{name}": getattr(config.codec, name) for name in ("name", "patch", "keep", "whitening")}
    there |= {f"codec.{name}": plan.codec[name] for name in ("name", "patch", "keep", "whitening")}
    for name, value in here.items():
        if value != there[name]:
            raise ConfigError(f"{folder} was made with {name} = {there[name]}, the model has {value}; "
                              "train the preset they were made for, or extract again")  # fmt: skip
    if config.needs_images and not plan.pictures:
        raise ConfigError(
            f"tower_sees is 'image', but {folder} has no pictures; extract with --pictures, or set tower_sees=latent "
            "with an image_tower that fits it"
        )
    if config.codec.mean is not None and list(config.codec.mean) != list(plan.codec["mean"] or ()):
        raise ConfigError(
            f"{folder} was made with other constants of codec {config.codec.name}; extract again"
        )


def require_same_codec(codec: ImageCodec, config: T2IConfig, shards: Shards) -> None:
    """Raise ConfigError where the codec's weights are not those that made the shards: pictures would come out wrong."""
    if codec_fingerprint(codec, config.codec) != shards.manifest.plan.codec["fingerprint"]:
        raise ConfigError(
            f"the weights of codec {config.codec.name} at {config.codec.path} are not those that made {shards.folder}; "
            f"set codec.path={shards.manifest.plan.codec['path']}"
        )
