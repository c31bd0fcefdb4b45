"""Language models by name, for configs and command lines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cf_encoders.language import LanguageModel, VocabLanguageModel
from cf_encoders.language_models.clip import ClipText
from cf_encoders.language_models.llama import LlamaText
from cf_encoders.language_models.minilm import MiniLM
from cf_encoders.language_models.open_clip_text import OpenClipText
from cf_encoders.language_models.t5 import T5Text
from cf_encoders.tokenizer import Vocabulary

Load = Callable[..., LanguageModel]


def language_model(
    name: str,
    path: Path | str | None = None,
    *,
    width: int = 192,
    max_tokens: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> LanguageModel:
    """The model of this name, frozen but for `vocab`.

    path         a local folder or a hub id. `open-clip`: also `ARCHITECTURE@WEIGHT_FILE`. `minilm`: none is the
                 installed package's. `vocab`: the file of a saved Vocabulary.
    max_tokens   None is the model's usual: 77, and 64 for `minilm` and `vocab`
    width        of `vocab`; the others have their own

    ValueError lists the names; a missing extra is an ImportError with its install command.
    """
    if name not in LANGUAGE_MODELS:
        raise ValueError(f"unknown language model {name!r}; known: {', '.join(LANGUAGE_MODELS)}")
    load, usual_tokens = LANGUAGE_MODELS[name]
    settings: dict[str, Any] = {"max_tokens": max_tokens or usual_tokens, "dtype": dtype, "device": device}
    if name == "vocab":
        settings["width"] = width
    if path is None and name != "minilm":
        raise ValueError(f"{name} needs the path of {WHAT_PATH.get(name, 'a local folder, or a hub id')}")
    return load(path, **settings)


def _t5_released(path: Path | str, **settings: Any) -> LanguageModel:
    return T5Text(path, variant="released", **settings)


def _open_clip(path: Path | str, **settings: Any) -> LanguageModel:
    architecture, at, checkpoint = str(path).partition("@")
    if at and not Path(path).is_dir():
        return OpenClipText(architecture, checkpoint, **settings)
    return OpenClipText(path, **settings)


def _vocab(
    path: Path | str, width: int, max_tokens: int, dtype: torch.dtype, device: torch.device | str
) -> LanguageModel:
    return VocabLanguageModel(Vocabulary.load(path), width, max_tokens).to(device, dtype)


LANGUAGE_MODELS: dict[str, tuple[Load, int]] = {
    "clip": (ClipText, 77),
    "open-clip": (_open_clip, 77),
    "t5": (T5Text, 77),
    "t5-released": (_t5_released, 77),
    "llama": (LlamaText, 77),
    "minilm": (MiniLM, 64),
    "vocab": (_vocab, 64),
}

WHAT_PATH = {
    "open-clip": "a local folder, 'hf-hub:owner/name' or 'ARCHITECTURE@WEIGHT_FILE'",
    "vocab": "a vocabulary: Vocabulary.build(captions).save(path)",
}
