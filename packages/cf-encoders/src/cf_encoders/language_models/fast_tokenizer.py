"""Captions -> ids through the `tokenizers` library: one call a batch, framed and cut the same way for every model."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

PADDING = -1  # no id of any tokenizer, so that ids say which of them are padding and travel without a mask


@runtime_checkable
class CaptionTokenizer(Protocol):
    """What a frozen language model reads captions with."""

    @property
    def max_tokens(self) -> int: ...

    @property
    def pad_id(self) -> int:
        """What the network is fed in place of PADDING."""
        ...

    @property
    def description(self) -> str:
        """Two tokenizers with the same description give every caption the same ids."""
        ...

    def __call__(self, captions: Sequence[str]) -> Int[Tensor, "b n"]:
        """Ids on the CPU, n = max_tokens of them; PADDING after a caption's last."""
        ...

    def too_long(self, captions: Sequence[str]) -> list[int]:
        """Indices of the captions that lose words."""
        ...


class FastTokenizer:
    """A `tokenizers.Tokenizer` set to cut captions at `max_tokens`, the framing tokens included and kept.

    backend   copied, so the caller's keeps its own settings
    eos_id    the token every caption ends with; ValueError if the backend's framing does not put it there
    limit     the most tokens the network has positions for; None where it has no such limit
    read      what is done to a caption first, and its name for the description
    """

    def __init__(
        self,
        backend: Any,
        max_tokens: int,
        *,
        pad_id: int,
        eos_id: int,
        limit: int | None = None,
        read: tuple[str, Callable[[str], str]] | None = None,
    ) -> None:
        self.backend = type(backend).from_str(backend.to_str())
        self.backend.no_padding()
        self.backend.no_truncation()
        framing = self.backend.encode("").ids
        if framing[-1:] != [eos_id]:
            raise ValueError(
                f"the tokenizer ends captions with ids {framing}, not with its end-of-text id {eos_id}; "
                "repair the post_processor in tokenizer.json"
            )
        require_room(max_tokens, len(framing) + 1, limit)
        self.max_tokens, self.pad_id = max_tokens, pad_id
        self.backend.enable_truncation(max_tokens)
        self._read_name, self._read = read or ("as it is", str)

    @property
    def description(self) -> str:
        return f"{self._read_name}; padded with {self.pad_id}; {self.backend.to_str()}"

    def __call__(self, captions: Sequence[str]) -> Int[Tensor, "b n"]:
        rows = [encoding.ids for encoding in self._encode(captions)]
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
        ids = torch.full((len(rows), self.max_tokens), PADDING)
        ids[torch.arange(self.max_tokens) < lengths[:, None]] = torch.tensor(
            list(chain.from_iterable(rows)), dtype=torch.long
        )
        return ids

    def too_long(self, captions: Sequence[str]) -> list[int]:
        return [i for i, encoding in enumerate(self._encode(captions)) if encoding.overflowing]

    def _encode(self, captions: Sequence[str]) -> list[Any]:
        return self.backend.encode_batch([self._read(caption) for caption in captions])


def require_room(max_tokens: int, least: int, limit: int | None) -> None:
    """Raise ValueError unless max_tokens holds the framing and a word, and the network has positions for it."""
    if max_tokens < least or (limit is not None and max_tokens > limit):
        bound = f">= {least}" if limit is None else f"in [{least}, {limit}]"
        raise ValueError(f"max_tokens must be {bound}, got {max_tokens}")
