"""Captions <-> token ids: what every tokenizer offers, and a word-level vocabulary built from captions."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

PAD, UNK, BOS, EOS = "<pad>", "<unk>", "<bos>", "<eos>"
SPECIALS = (PAD, UNK, BOS, EOS)  # always ids 0, 1, 2, 3
PAD_ID, UNK_ID, BOS_ID, EOS_ID = range(4)
WORDS = re.compile(r"\w+|[^\w\s]")


@runtime_checkable
class Tokenizer(Protocol):
    """Captions <-> ids in [0, len(tokenizer)); `<pad> <unk> <bos> <eos>` are 0, 1, 2, 3 in every one here."""

    def __len__(self) -> int: ...

    def length(self, caption: str) -> int:
        """Tokens the caption takes, <bos> and <eos> included."""
        ...

    def encode(
        self, captions: Sequence[str], max_tokens: int
    ) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b n"]]:
        """<bos> tokens <eos>, padded to n = max_tokens, and the mask of tokens that are not padding."""
        ...

    def decode(self, ids: Int[Tensor, "b n"]) -> list[str]:
        """The captions up to the first <eos>; <pad> and <bos> are left out."""
        ...

    def save(self, path: Path | str) -> None:
        """Write the file that the class's `load` reads."""
        ...


def frame(rows: Sequence[Sequence[int]], max_tokens: int) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b n"]]:
    """<bos> row <eos>, padded to n = max_tokens, and the mask of ids that are not padding.

    A longer row loses ids at its end, never its <eos>.
    """
    if max_tokens < 2:
        raise ValueError(f"max_tokens must be >= 2 to hold <bos> and <eos>, got {max_tokens}")
    ids = torch.full((len(rows), max_tokens), PAD_ID)
    for framed, row in zip(ids, rows, strict=True):
        kept = [BOS_ID, *row[: max_tokens - 2], EOS_ID]
        framed[: len(kept)] = torch.tensor(kept)
    return ids, ids != PAD_ID


def unframe(row: Sequence[int]) -> list[int]:
    """The ids up to the first <eos>, without <pad> and <bos>."""
    row = list(row)
    row = row[: row.index(EOS_ID)] if EOS_ID in row else row
    return [i for i in row if i not in (PAD_ID, BOS_ID)]


def split_words(caption: str) -> list[str]:
    """Lower-case words and single punctuation marks: "A dog, left." -> ["a", "dog", ",", "left", "."]"""
    return WORDS.findall(caption.lower())


class Vocabulary:
    """Words and their ids. `<pad> <unk> <bos> <eos>` come first, then `words` in the order given."""

    def __init__(self, words: Sequence[str]) -> None:
        twice = [word for word, count in Counter([*SPECIALS, *words]).items() if count > 1]
        if twice:
            raise ValueError(f"words must be unique and none of {SPECIALS}, twice: {twice[:5]}")
        self.words = (*SPECIALS, *words)
        self._ids = {word: i for i, word in enumerate(self.words)}

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int = 1, max_words: int | None = None) -> "Vocabulary":
        """The words of these captions, most frequent first (then by alphabet, so that the order is fixed)."""
        counts = Counter(word for caption in captions for word in split_words(caption))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return cls([word for word in ranked if counts[word] >= min_count][:max_words])

    def __len__(self) -> int:
        return len(self.words)

    def length(self, caption: str) -> int:
        """Tokens the caption takes, <bos> and <eos> included."""
        return len(split_words(caption)) + 2

    def unknown(self, captions: Iterable[str]) -> Counter[str]:
        """How often each word that is not in the vocabulary occurs in these captions."""
        return Counter(word for caption in captions for word in split_words(caption) if word not in self._ids)

    def encode(
        self, captions: Sequence[str], max_tokens: int
    ) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b n"]]:
        """<bos> words <eos>, padded to n = max_tokens, and the mask of tokens that are not padding.

        A longer caption loses words at its end, never its <eos>.
        """
        words = (split_words(caption) for caption in captions)
        return frame([[self._ids.get(word, UNK_ID) for word in some] for some in words], max_tokens)

    def decode(self, ids: Int[Tensor, "b n"]) -> list[str]:
        """Words up to the first <eos>, joined by blanks; <pad> and <bos> are left out."""
        return [" ".join(self.words[i] for i in unframe(row)) for row in ids.tolist()]

    def save(self, path: Path | str) -> None:
        """Write {"words": [...]} as JSON."""
        words = self.words[len(SPECIALS) :]
        Path(path).write_text(json.dumps({"words": words}, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> "Vocabulary":
        """The inverse of `save`. ValueError when the file is not a vocabulary."""
        try:
            return cls(json.loads(Path(path).read_text(encoding="utf-8"))["words"])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f'{path} is not a vocabulary; expected JSON {{"words": [...]}}') from error
