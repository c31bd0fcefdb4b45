"""Before the first step of captioning: data, frozen parts, modules, and what does not fit said or refused."""

from dataclasses import replace
from pathlib import Path

import torch
from cf_encoders import DiagonalGaussian, PatchDCTCodec, kl_weight_warning
from cf_encoders.codec import PixelCodec

from cf_apps.caption.config import CaptionConfig
from cf_apps.caption.model import NAME, CaptionModel, build
from cf_apps.caption.prepare_text import cut_captions
from cf_apps.caption.sources import (
    CaptionSource,
    open_captions,
    some_captions,
)
from cf_apps.caption.task import CaptionTask, encode_all
from cf_apps.caption.text import TextModel
from cf_apps.engine.codecs import CodecConfig, fitted, with_constants_of
from cf_apps.engine.commands.app import Ready, Setting, begun
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.watching.progress import Progress

CODEC_SAMPLE = 2_048  # pictures that a codec's constants are measured on
TEXT_SAMPLE = 4_096  # captions that the text latents' statistics are measured on
READ_BACK = 256  # captions that are tried on the text run
LEAST_READ_BACK = 0.8  # of these; below it the text run is the limit, or of other captions
FITS_IN_MEMORY = 2**32  # bytes of latents that are computed once rather than at every step


def prepare(config: CaptionConfig, setting: Setting) -> Ready:
    """A captioning task ready to train. Raises UserError or DataError for what cannot be trained."""
    if config.text is None:
        raise ConfigError(
            "captioning needs a trained text autoencoder; run `crossflow caption train-text` and pass --text with "
            "its run folder"
        )
    before = begun(setting, NAME)
    text = TextModel.from_run(Path(config.text), setting.device)
    source = open_captions(setting.data, config.image_size, setting.seed)
    captions = some_captions(source.train, TEXT_SAMPLE)
    if before is None:
        config = measured(config, text, source, captions)
    else:
        config = _as_begun(config, CaptionConfig.from_dict(before["config"]), source)
    model = build(config, text.decoder, text.tokenizer, setting.device, setting.seed)
    said = [*cut_captions(text, captions), *_unreadable(text, captions), *_odd_kl_weight(config)]
    latents = _latents(model, source, setting.line)
    task = CaptionTask(model, text, source.train, source.name, setting.seed, latents)
    return Ready(task, source.skipped.notes(), [*said, *source.skipped.said()])


def _as_begun(config: CaptionConfig, earlier: CaptionConfig, source: CaptionSource) -> CaptionConfig:
    """The config with what the run measured before its first step; another codec than it had is measured now."""
    codec = with_constants_of(config.codec, earlier.codec)
    if codec != earlier.codec:
        codec = _fitted(codec, source)
    return replace(config, codec=codec, mean=earlier.mean, std=earlier.std)


def _fitted(codec: CodecConfig, source: CaptionSource) -> CodecConfig:
    """The codec with its constants, measured on the first training pictures."""
    return fitted(codec, source.train.batch(torch.arange(min(CODEC_SAMPLE, len(source.train)))).images)


@torch.no_grad()
def measured(
    config: CaptionConfig, text: TextModel, source: CaptionSource, captions: list[str]
) -> CaptionConfig:
    """The config with what is measured before the first step: the codec's constants, mean and std of text latents."""
    z = torch.cat([text.posterior(captions[i : i + 256]).mean.float() for i in range(0, len(captions), 256)])
    mean, std = z.mean((0, 2, 3)), z.std((0, 2, 3)).clamp(min=1e-3)
    codec = _fitted(config.codec, source)
    return replace(config, codec=codec, mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def _unreadable(text: TextModel, captions: list[str]) -> list[str]:
    """Say so when the text run cannot give these captions back: the flow's own will be no better."""
    right = text.exact(captions[:READ_BACK])
    if right >= LEAST_READ_BACK:
        return []
    return [
        f"the text run gives back only {100 * right:.0f} % of the captions; was it trained on this data, for long?"
    ]


def _odd_kl_weight(config: CaptionConfig) -> list[str]:
    """Say so when the weight would let sigma die, or pictures be forgotten, in a latent of this size."""
    if config.image_ve is None or not config.loss.kl_weight:
        return []
    warning = kl_weight_warning(config.loss.kl_weight, config.latent)
    return [f"loss.kl_weight: {warning}"] if warning else []


def _latents(model: CaptionModel, source: CaptionSource, line: Progress) -> DiagonalGaussian | None:
    c, h, w = model.codec.latent_shape(model.config.image_size, model.config.image_size)
    trivial = isinstance(model.codec, PixelCodec | PatchDCTCodec)
    if trivial or 4 * c * h * w * len(source.train) > FITS_IN_MEMORY:
        return None
    return encode_all(model, source.train, line)
