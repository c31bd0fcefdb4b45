"""Language models and codecs by name, for configs and command lines."""

from pathlib import Path

from cf_encoders.codec import ImageCodec, PixelCodec
from cf_encoders.language import LanguageModel, VocabLanguageModel
from cf_encoders.minilm import MiniLM
from cf_encoders.patch_dct import PatchDCTCodec
from cf_encoders.taef2 import TAEF2
from cf_encoders.tokenizer import Vocabulary

LANGUAGE_MODELS = ("minilm", "vocab")
IMAGE_CODECS = ("patch-dct", "pixels", "taef2")


def language_model(
    name: str, path: Path | str | None = None, *, width: int = 192, max_tokens: int = 64
) -> LanguageModel:
    """`vocab`: path is a saved Vocabulary, `width` its vectors'. `minilm`: path a model folder, or none.

    ValueError lists the names; a missing extra is an ImportError with its install command.
    """
    match name:
        case "vocab":
            if path is None:
                raise ValueError(
                    "vocab needs the path of a vocabulary: Vocabulary.build(captions).save(path)"
                )
            return VocabLanguageModel(Vocabulary.load(path), width, max_tokens)
        case "minilm":
            return MiniLM(path, max_tokens)
        case _:
            raise ValueError(f"unknown language model {name!r}; known: {', '.join(LANGUAGE_MODELS)}")


def image_codec(name: str, path: Path | str | None = None) -> ImageCodec:
    """`pixels`, `patch-dct` (patch 4, 24 components) or `taef2` (path: the folder of its weights).

    ValueError lists the names.
    """
    match name:
        case "pixels":
            return PixelCodec()
        case "patch-dct":
            return PatchDCTCodec()
        case "taef2":
            if path is None:
                raise ValueError("taef2 needs the path of the folder with its weights")
            return TAEF2.from_folder(path)
        case _:
            raise ValueError(f"unknown image codec {name!r}; known: {', '.join(IMAGE_CODECS)}")
