"""Image codecs by name, for configs and command lines."""

from collections.abc import Callable
from pathlib import Path

import torch

from cf_encoders.codec import ImageCodec, PixelCodec
from cf_encoders.codecs.autoencoder_kl import RELEASED_SCALE, AutoencoderKLCodec
from cf_encoders.codecs.autoencoder_tiny import AutoencoderTinyCodec
from cf_encoders.codecs.diffusers_folder import find_config
from cf_encoders.codecs.options import CodecOptions
from cf_encoders.codecs.patch_dct import PatchDCTCodec
from cf_encoders.codecs.taef2 import TAEF2

Load = Callable[[Path | str | None, CodecOptions], ImageCodec]

# name -> scale and shift: latent = (raw latent - shift) scale. Older config.jsons do not say it.
KL_SCALES = {
    "flux-vae": (0.3611, 0.1159),
    "sd-vae": (0.18215, 0.0),
    "sd3-vae": (1.5305, 0.0609),
    "sdxl-vae": (0.13025, 0.0),
}


def image_codec(
    name: str,
    path: Path | str | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    decode_dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    batch_size: int | None = None,
    tile: int | None = None,
) -> ImageCodec:
    """The codec of this name; the options are those of `CodecOptions`. ValueError lists the names.

    pixels, patch-dct                    no network, no path: of the options only `device` means something
    taef2                                path: the folder of its two files
    taesd, taesdxl                       path: a folder or hub id in diffusers' format
    sd-vae, sdxl-vae, sd3-vae, flux-vae  the same, with the scale and shift of that family's latents
    released-vae                         the same, or a CompVis state dict, at the public CrossFlow code's scale 0.23010
    """
    if name not in IMAGE_CODECS:
        raise ValueError(f"unknown image codec {name!r}; known: {', '.join(IMAGE_CODECS)}")
    return IMAGE_CODECS[name](path, CodecOptions(dtype, decode_dtype, device, batch_size, tile))


def _pixels(path: Path | str | None, options: CodecOptions) -> ImageCodec:
    return PixelCodec().to(options.device)


def _patch_dct(path: Path | str | None, options: CodecOptions) -> ImageCodec:
    return PatchDCTCodec().to(options.device)


def _taef2(path: Path | str | None, options: CodecOptions) -> ImageCodec:
    return TAEF2.from_folder(_required(path, "taef2", "of the folder with its weights"), options)


def _tiny(name: str) -> Load:
    def load(path: Path | str | None, options: CodecOptions) -> ImageCodec:
        path = _required(
            path, name, f"of a folder in diffusers' format, or a hub id such as madebyollin/{name}"
        )
        return AutoencoderTinyCodec.from_pretrained(path, options=options)

    return load


def _kl(name: str) -> Load:
    scale, shift = KL_SCALES[name]

    def load(path: Path | str | None, options: CodecOptions) -> ImageCodec:
        path = _required(path, name, "of a folder in diffusers' format, or a hub id")
        _require_scale(name, path)
        return AutoencoderKLCodec.from_pretrained(path, scale=scale, shift=shift, options=options)

    return load


def _released(path: Path | str | None, options: CodecOptions) -> ImageCodec:
    path = _required(
        path, "released-vae", "of autoencoder_kl.pth or of a folder in diffusers' format, or a hub id"
    )
    if Path(path).is_file():
        return AutoencoderKLCodec.from_ldm(path, RELEASED_SCALE, options=options)
    return AutoencoderKLCodec.from_pretrained(path, scale=RELEASED_SCALE, shift=0.0, options=options)


def _required(path: Path | str | None, name: str, what: str) -> Path | str:
    if path is None:
        raise ValueError(f"{name} needs the path {what}")
    return path


def _require_scale(name: str, path: Path | str) -> None:
    """Raise ValueError if config.json names the scale of another family: its latents would be of the wrong size."""
    said = find_config("AutoencoderKL", path).get("scaling_factor")
    scale, _ = KL_SCALES[name]
    if said not in (None, scale):  # the oldest files of Stable Diffusion do not say it
        fitting = [other for other, (theirs, _) in KL_SCALES.items() if theirs == said]
        remedy = f"take {fitting[0]}" if fitting else "build it with AutoencoderKLCodec.from_pretrained"
        raise ValueError(f"{name} has scale {scale}, but config.json in {path} says {said}; {remedy}")


IMAGE_CODECS: dict[str, Load] = {
    "patch-dct": _patch_dct,
    "pixels": _pixels,
    "taef2": _taef2,
    "released-vae": _released,
    **{name: _kl(name) for name in KL_SCALES},
    **{name: _tiny(name) for name in ("taesd", "taesdxl")},
}
