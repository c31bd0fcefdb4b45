"""The image codec of a run: chosen by name, frozen, and between pictures and latents in every task."""

from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import torch
from cf_encoders import ImageCodec, PatchDCTCodec, image_codec
from cf_encoders.codecs.by_name import IMAGE_CODECS
from jaxtyping import UInt8
from torch import Tensor, nn

from cf_apps.engine.errors import ConfigError

BUNDLED = ("taef2",)  # their weights ship with cf-apps
WITHOUT_PATH = ("pixels", "patch-dct", *BUNDLED)  # all others are read from a path


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


def fitted(config: CodecConfig, images: UInt8[Tensor, "b 3 H W"]) -> CodecConfig:
    """The codec's config with the constants that these pictures ask for, where it has any."""
    if config.name != "patch-dct" or config.mean is not None:
        return config
    codec = PatchDCTCodec.fitted(images.float() / 255, config.patch, config.keep, whitening=config.whitening)
    mean, std = codec.mean.flatten().tolist(), codec.std.flatten().tolist()
    return replace(config, mean=tuple(mean), std=tuple(std))


def with_constants_of(config: CodecConfig, earlier: CodecConfig) -> CodecConfig:
    """The codec as an earlier run measured it, which that run's weights are tied to; as it is where it is another."""
    same = config.mean is None and replace(config, mean=earlier.mean, std=earlier.std) == earlier
    return earlier if same else config


def build_codec(config: CodecConfig, device: torch.device) -> ImageCodec:
    """The codec on its device. Raises ConfigError where its weights are not there, naming the key to set."""
    if config.path is None and config.name in IMAGE_CODECS and config.name not in WITHOUT_PATH:
        raise ConfigError(
            f"codec {config.name}: no path to the weights, a folder or a hub id; give --set codec.path=PATH"
        )
    if config.name == "patch-dct":
        return PatchDCTCodec(config.patch, config.keep, config.mean, config.std).to(device)
    path: str | Path | None = config.path
    if path is None and config.name in BUNDLED:
        path = Path(str(files("cf_apps") / "assets" / config.name))
    try:
        codec = image_codec(config.name, path)
    except (ValueError, ImportError, OSError) as error:
        raise ConfigError(f"image codec {config.name}: {error}") from error
    if isinstance(codec, nn.Module):
        codec.to(device)
    return codec
