"""Before the first step of text to image: data, frozen parts, modules, and what does not fit said or refused."""

from dataclasses import replace
from pathlib import Path

import torch
from cf_encoders import PatchDCTCodec, Vocabulary, kl_weight_warning
from cf_encoders.codec import PixelCodec

from cf_apps.data.sources import Source, open_source
from cf_apps.engine.app import Ready, Setting
from cf_apps.engine.checkpoint import checkpoints
from cf_apps.engine.codecs import fitted
from cf_apps.engine.progress import Progress
from cf_apps.t2i.config import T2IConfig
from cf_apps.t2i.initial import Origin
from cf_apps.t2i.model import T2IModel, build
from cf_apps.t2i.task import T2ITask, encode_all

VOCABULARY_SAMPLE = 4_096  # captions that a vocabulary is read from
CODEC_SAMPLE = 2_048  # pictures that a codec's constants are measured on
FITS_IN_MEMORY = 20_000  # images whose latents are computed once rather than at every step


def prepare(config: T2IConfig, setting: Setting) -> Ready:
    """A text-to-image task ready to train. Raises UserError or DataError for what cannot be trained."""
    origin = _origin(config, setting)
    source = open_source(setting.data, config.image_size, setting.seed)
    config = _fitted(config if origin is None else origin.adopted(config), source)
    vocabulary = _vocabulary(config, source) if origin is None else origin.vocabulary()
    model = build(config, vocabulary, setting.device, setting.seed)
    notes, said = list(source.skipped.notes()), [*_cut_captions(model, source), *_odd_kl_weight(config)]
    if origin is not None and origin.tensors is not None:
        fresh = origin.copy_into(model, setting.seed)
        notes.append(origin.note(fresh))
        said += origin.said(fresh, _some_captions(source))
    latents = _latents(model, source, setting.line)
    task = T2ITask(model, source.train, source.name, setting.seed, latents)
    return Ready(task, notes, [*said, *source.skipped.said()])


def _origin(config: T2IConfig, setting: Setting) -> Origin | None:
    """The run that words and constants come from, and the weights as well unless it is this one, going on."""
    if setting.resumed is not None and checkpoints(setting.resumed):
        return Origin.resumed(setting.resumed)
    return None if config.init is None else Origin.read(Path(config.init))


def _vocabulary(config: T2IConfig, source: Source) -> Vocabulary | None:
    if config.language.name != "vocab":
        return None
    return Vocabulary.build(_some_captions(source, torch.Generator().manual_seed(0)))


def _some_captions(source: Source, phrasings: torch.Generator | None = None) -> list[str]:
    """Those of the first images, one each."""
    first = torch.arange(min(VOCABULARY_SAMPLE, len(source.train)))
    return source.train.batch(first, phrasings).captions


def _fitted(config: T2IConfig, source: Source) -> T2IConfig:
    """The config with what is measured on the training pictures before the first step."""
    if config.codec.name != "patch-dct" or config.codec.mean is not None:
        return config  # nothing to measure: thousands of pictures need not be read
    first = torch.arange(min(CODEC_SAMPLE, len(source.train)))
    return replace(config, codec=fitted(config.codec, source.train.batch(first).images))


def _cut_captions(model: T2IModel, source: Source) -> list[str]:
    """Captions longer than the model reads would lose their end in silence: say how many, and how to read more."""
    captions = _some_captions(source)
    long = model.language.too_long(captions)
    if not long:
        return []
    return [
        f"{len(long)} of {len(captions)} captions are longer than the {model.language.max_tokens} tokens the model "
        f"reads and are cut, e.g. {captions[long[0]]!r}; to read more pass --set language.max_tokens=N "
        f"--set {_reading_part(model.config)}.max_tokens=N"
    ]


def _reading_part(config: T2IConfig) -> str:
    """The key of the part that reads the tokens."""
    return "reader" if config.reader is not None else "text_ve"


def _odd_kl_weight(config: T2IConfig) -> list[str]:
    """Say so when the weight would let sigma die, or captions be forgotten, in a latent of this size."""
    loss, text_ve = config.loss, config.text_ve
    if text_ve is None or text_ve.variation != "learned" or not loss.kl_weight:
        return []
    warning = kl_weight_warning(loss.kl_weight, config.latent, loss.kl_form)
    return [f"loss.kl_weight: {warning}"] if warning else []


def _latents(model: T2IModel, source: Source, line: Progress) -> torch.Tensor | None:
    if isinstance(model.codec, PixelCodec | PatchDCTCodec) or len(source.train) > FITS_IN_MEMORY:
        return None
    return encode_all(model, source.train, line)
