"""Before the first step of text to image: data, frozen parts, modules, and what does not fit said or refused."""

from dataclasses import replace

import torch
from cf_encoders import PatchDCTCodec, Vocabulary, kl_weight_warning
from cf_encoders.codec import PixelCodec

from cf_apps.data.sources import Source, open_source
from cf_apps.engine.app import Ready, Setting
from cf_apps.engine.codecs import fitted
from cf_apps.engine.progress import Progress
from cf_apps.t2i.config import T2IConfig
from cf_apps.t2i.model import T2IModel, build
from cf_apps.t2i.task import T2ITask, encode_all

VOCABULARY_SAMPLE = 4_096  # captions that a vocabulary is read from
CODEC_SAMPLE = 2_048  # pictures that a codec's constants are measured on
FITS_IN_MEMORY = 20_000  # images whose latents are computed once rather than at every step


def prepare(config: T2IConfig, setting: Setting) -> Ready:
    """A text-to-image task ready to train. Raises UserError or DataError for what cannot be trained."""
    source = open_source(setting.data, config.image_size, setting.seed)
    config = _fitted(config, source)
    model = build(config, _vocabulary(config, source), setting.device, setting.seed)
    said = [*_cut_captions(model, source), *_odd_kl_weight(config), *source.skipped.said()]
    latents = _latents(model, source, setting.line)
    task = T2ITask(model, source.train, source.name, setting.seed, latents)
    return Ready(task, source.skipped.notes(), said)


def _vocabulary(config: T2IConfig, source: Source) -> Vocabulary | None:
    if config.language.name != "vocab":
        return None
    count = min(VOCABULARY_SAMPLE, len(source.train))
    phrasings = torch.Generator().manual_seed(0)
    return Vocabulary.build(source.train.batch(torch.arange(count), phrasings).captions)


def _fitted(config: T2IConfig, source: Source) -> T2IConfig:
    """The config with what is measured on the training pictures before the first step."""
    first = torch.arange(min(CODEC_SAMPLE, len(source.train)))
    return replace(config, codec=fitted(config.codec, source.train.batch(first).images))


def _cut_captions(model: T2IModel, source: Source) -> list[str]:
    """Captions longer than the model reads would lose their end in silence: say how many, and how to read more."""
    captions = source.train.batch(torch.arange(min(VOCABULARY_SAMPLE, len(source.train)))).captions
    long = model.language.too_long(captions)
    if not long:
        return []
    return [
        f"{len(long)} of {len(captions)} captions are longer than the {model.language.max_tokens} tokens the model "
        f"reads and are cut, e.g. {captions[long[0]]!r}; to read more pass --set language.max_tokens=N "
        "--set text_ve.max_tokens=N"
    ]


def _odd_kl_weight(config: T2IConfig) -> list[str]:
    """Say so when the weight would let sigma die, or captions be forgotten, in a latent of this size."""
    loss = config.loss
    warning = kl_weight_warning(loss.kl_weight, config.latent, loss.kl_form) if loss.kl_weight else None
    return [f"loss.kl_weight: {warning}"] if warning and config.text_ve.variation == "learned" else []


def _latents(model: T2IModel, source: Source, line: Progress) -> torch.Tensor | None:
    if isinstance(model.codec, PixelCodec | PatchDCTCodec) or len(source.train) > FITS_IN_MEMORY:
        return None
    return encode_all(model, source.train, line)
