"""Frozen language models behind the Protocol of `language.py`, each in a room of its own."""

from cf_encoders.language_models.by_name import LANGUAGE_MODELS, language_model
from cf_encoders.language_models.cache import CachedLanguageModel
from cf_encoders.language_models.clean_caption import clean_caption
from cf_encoders.language_models.clip import ClipText
from cf_encoders.language_models.llama import LlamaText
from cf_encoders.language_models.minilm import MiniLM
from cf_encoders.language_models.open_clip_text import OpenClipText
from cf_encoders.language_models.t5 import T5Text

__all__ = [
    "LANGUAGE_MODELS",
    "CachedLanguageModel",
    "ClipText",
    "LlamaText",
    "MiniLM",
    "OpenClipText",
    "T5Text",
    "clean_caption",
    "language_model",
]
