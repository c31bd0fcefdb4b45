"""Before the first step of the text autoencoder: its vocabulary is learned from the captions."""

from cf_apps.caption.config import TextConfig
from cf_apps.caption.sources import open_captions, some_captions
from cf_apps.caption.text import NAME, TextModel, TextTask, build
from cf_apps.caption.tokens import learned, restored
from cf_apps.engine.commands.app import Ready, Setting, begun

IMAGE_SIZE = 32  # pixels; pictures are not looked at, but the sets come with some
LEARN_FROM = 50_000  # captions that the tokenizer is learned from
CHECKED = 4_096  # captions that are looked at for their length


def prepare_text(config: TextConfig, setting: Setting) -> Ready:
    """A text autoencoder ready to train. Raises UserError or DataError for what cannot be trained."""
    source = open_captions(setting.data, IMAGE_SIZE, setting.seed)
    captions = some_captions(source.train, LEARN_FROM)
    if (before := begun(setting, NAME)) is None:
        tokenizer = learned(config.tokens, captions, config.autoencoder.decoder.vocabulary)
    else:
        tokenizer = restored(before["tokenizer"])
    model = build(config, tokenizer, setting.device, setting.seed)
    task = TextTask(model, source.train, source.name, setting.seed)
    said = [*cut_captions(model, captions[:CHECKED]), *source.skipped.said()]
    return Ready(task, source.skipped.notes(), said)


def cut_captions(model: TextModel, captions: list[str]) -> list[str]:
    """Captions longer than the model reads would lose their end in silence: say how many, and how to read more."""
    long = model.too_long(captions)
    if not long:
        return []
    return [
        f"{len(long)} of {len(captions)} captions are longer than {model.max_tokens} tokens and are cut, e.g. "
        f"{captions[long[0]]!r}; to read more pass --set autoencoder.encoder.max_tokens=N "
        "--set autoencoder.decoder.max_tokens=N-1"
    ]
