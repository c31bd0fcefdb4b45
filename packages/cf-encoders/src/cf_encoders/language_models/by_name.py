"""Language models by name, for configs and command lines."""

from pathlib import Path

from cf_encoders.language import LanguageModel, VocabLanguageModel
from cf_encoders.language_models.minilm import MiniLM
from cf_encoders.tokenizer import Vocabulary

LANGUAGE_MODELS = ("minilm", "vocab")


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
