"""Before the first step of text to image: data, frozen parts, modules, and what does not fit said or refused."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from cf_encoders import LanguageModel, PatchDCTCodec, Vocabulary, kl_weight_warning
from cf_encoders.codec import PixelCodec

from cf_apps.data.captioned import CaptionedImages
from cf_apps.data.pairs import SkippedSamples
from cf_apps.data.shards.reading import Shards
from cf_apps.data.shards.records import is_shards
from cf_apps.data.sources import open_source
from cf_apps.engine.codecs import fitted
from cf_apps.engine.commands.app import Ready, Setting, begun
from cf_apps.engine.watching.progress import Progress
from cf_apps.t2i.config import T2IConfig
from cf_apps.t2i.extract.extracted import from_shards, require_same_codec
from cf_apps.t2i.initial import Origin
from cf_apps.t2i.model import T2IModel, build
from cf_apps.t2i.task import T2ITask, encode_all

VOCABULARY_SAMPLE = 4_096  # captions that a vocabulary is read from
CODEC_SAMPLE = 2_048  # pictures that a codec's constants are measured on
FITS_IN_MEMORY = 20_000  # images whose latents are computed once rather than at every step


@dataclass(frozen=True)
class _Material:
    """What is trained on, and the config with what was measured on it.

    language: in place of the config's own, where features were kept. name: as the user called the data.
    """

    data: CaptionedImages | Shards
    name: str
    config: T2IConfig
    language: LanguageModel | None = None
    skipped: SkippedSamples = field(default_factory=SkippedSamples)


def prepare(config: T2IConfig, setting: Setting) -> Ready:
    """A text-to-image task ready to train. Raises UserError or DataError for what cannot be trained."""
    origin = _origin(config, setting)
    adopted = config if origin is None else origin.adopted(config)
    material = (_from_shards if is_shards(setting.data) else _from_pictures)(adopted, setting)
    config, data = material.config, material.data
    vocabulary = _vocabulary(config, data) if origin is None else origin.vocabulary()
    model = build(config, vocabulary, setting.device, setting.seed, material.language)
    if isinstance(data, Shards):
        require_same_codec(model.codec, config, data)
    notes, said = list(material.skipped.notes()), [*_cut_captions(model, data), *_odd_kl_weight(config)]
    if origin is not None and origin.tensors is not None:
        fresh = origin.copy_into(model, setting.seed)
        notes.append(origin.note(fresh))
        said += origin.said(fresh, _some_captions(data))
    task = T2ITask(model, data, material.name, setting.seed, _latents(model, data, setting.line))
    return Ready(task, notes, [*said, *material.skipped.said()])


def _from_pictures(config: T2IConfig, setting: Setting) -> _Material:
    source = open_source(setting.data, config.image_size, setting.seed)
    return _Material(source.train, source.name, _fitted(config, source.train), skipped=source.skipped)


def _from_shards(config: T2IConfig, setting: Setting) -> _Material:
    shards, config, language = from_shards(config, Path(setting.data))
    return _Material(shards, str(shards.folder.resolve()), config, language)


def _origin(config: T2IConfig, setting: Setting) -> Origin | None:
    """The run that words and constants come from, and the weights as well unless it is this one, going on."""
    if setting.resumed is not None and (task := begun(setting, "t2i")) is not None:
        return Origin.resumed(setting.resumed, task)
    return None if config.init is None else Origin.read(Path(config.init))


def _vocabulary(config: T2IConfig, data: CaptionedImages | Shards) -> Vocabulary | None:
    if config.language.name != "vocab":
        return None
    return Vocabulary.build(_some_captions(data, torch.Generator().manual_seed(0)))


def _some_captions(data: CaptionedImages | Shards, phrasings: torch.Generator | None = None) -> list[str]:
    """Those of the first images: one each, of shards all."""
    if isinstance(data, Shards):
        return data.captions(VOCABULARY_SAMPLE)
    first = torch.arange(min(VOCABULARY_SAMPLE, len(data)))
    return data.batch(first, phrasings).captions


def _fitted(config: T2IConfig, data: CaptionedImages) -> T2IConfig:
    """The config with what is measured on the training pictures before the first step."""
    if config.codec.name != "patch-dct" or config.codec.mean is not None:
        return config  # nothing to measure: thousands of pictures need not be read
    first = torch.arange(min(CODEC_SAMPLE, len(data)))
    return replace(config, codec=fitted(config.codec, data.batch(first).images))


def _cut_captions(model: T2IModel, data: CaptionedImages | Shards) -> list[str]:
    """Captions longer than the model reads would lose their end in silence: say how many, and how to read more."""
    captions = _some_captions(data)
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


def _latents(model: T2IModel, data: CaptionedImages | Shards, line: Progress) -> torch.Tensor | None:
    """x_1 of every picture where encoding is slow and they fit in memory; shards have their own."""
    if isinstance(data, Shards) or isinstance(model.codec, PixelCodec | PatchDCTCodec):
        return None
    return encode_all(model, data, line) if len(data) <= FITS_IN_MEMORY else None
