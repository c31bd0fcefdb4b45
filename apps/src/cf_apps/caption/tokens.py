"""Captions <-> ids: the two tokenizers by name, kept in config.json, and what they write put back into sentences."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cf_encoders import Tokenizer, Vocabulary
from cf_encoders.captions import Subwords
from cf_encoders.tokenizer import SPECIALS, split_words
from jaxtyping import Int
from torch import Tensor

from cf_apps.engine.errors import ConfigError

_BEFORE_A_MARK = re.compile(r" (?=[,.;:!?])")


def _words(captions: Sequence[str], size: int) -> Tokenizer:
    return Vocabulary.build(captions, max_words=size - len(SPECIALS))


TOKENIZERS: dict[str, Callable[[Sequence[str], int], Tokenizer]] = {
    # name    (captions, most tokens) -> tokenizer
    "words": _words,
    "bpe": Subwords.build,
}


def learned(kind: str, captions: Sequence[str], size: int) -> Tokenizer:
    """A tokenizer of at most `size` tokens, special ones included. ConfigError where that is too few, or none."""
    try:
        return TOKENIZERS[kind](captions, size)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"tokens {kind}: {error}") from error


def described(tokenizer: Tokenizer) -> dict[str, Any]:
    """The tokenizer as JSON."""
    if isinstance(tokenizer, Vocabulary):
        return {"words": list(tokenizer.words[len(SPECIALS) :])}
    assert isinstance(tokenizer, Subwords)
    return {"bpe": json.loads(tokenizer.tokenizer.to_str())}


def restored(description: Mapping[str, Any]) -> Tokenizer:
    """The inverse of `described`."""
    if "words" in description:
        return Vocabulary(description["words"])
    from tokenizers import Tokenizer as Library

    return Subwords(Library.from_str(json.dumps(description["bpe"])))


def sentences(tokenizer: Tokenizer, ids: Int[Tensor, "b n"]) -> list[str]:
    """The captions that ids spell; no blank stands before a comma or a full stop."""
    return [_BEFORE_A_MARK.sub("", text) for text in tokenizer.decode(ids)]


def normal_form(tokenizer: Tokenizer, caption: str) -> str:
    """What comes back of a caption at best: lower case, single blanks, marks as the tokenizer sets them."""
    if isinstance(tokenizer, Subwords):
        return tokenizer.normal_form(caption)
    return _BEFORE_A_MARK.sub("", " ".join(split_words(caption)))
