"""Language models as the encoder sees them: captions in, token features (b, n, d) and their mask out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cf_encoders.tokenizer import PAD, Vocabulary


@dataclass(frozen=True)
class TextFeatures:
    """What a TextVE reads: `TextVE(config)(features.tokens, features.mask)`. The mask is False on padding."""

    tokens: Float[Tensor, "b n d"]
    mask: Bool[Tensor, "b n"]

    def to(self, device: torch.device | str) -> "TextFeatures":
        return TextFeatures(self.tokens.to(device), self.mask.to(device))


@runtime_checkable
class LanguageModel(Protocol):
    """Captions -> TextFeatures of n = max_tokens tokens, `width` wide, padding last."""

    @property
    def width(self) -> int: ...

    @property
    def max_tokens(self) -> int: ...

    def __call__(self, captions: Sequence[str]) -> TextFeatures: ...

    def too_long(self, captions: Sequence[str]) -> list[int]:
        """Indices of the captions that lose words, because they have more than `max_tokens` tokens."""
        ...


@runtime_checkable
class FrozenLanguageModel(LanguageModel, Protocol):
    """A LanguageModel whose features never change, so that they can be kept on disk."""

    @property
    def fingerprint(self) -> str:
        """The same text for two models only if they give every caption the same features."""
        ...


class VocabLanguageModel(nn.Module):
    """One learned vector per word, and nothing else: trained with the encoder, or frozen as it is drawn.

    Word order is left to the encoder, which has positions.
    """

    def __init__(self, vocabulary: Vocabulary, width: int = 192, max_tokens: int = 32) -> None:
        super().__init__()
        if width < 1 or max_tokens < 2:
            raise ValueError(f"need width >= 1 and max_tokens >= 2, got {width} and {max_tokens}")
        self.vocabulary, self.width, self.max_tokens = vocabulary, width, max_tokens
        self.embedding = nn.Embedding(len(vocabulary), width, padding_idx=vocabulary.words.index(PAD))

    def forward(self, captions: Sequence[str]) -> TextFeatures:
        ids, mask = self.vocabulary.encode(captions, self.max_tokens)
        device = self.embedding.weight.device
        return TextFeatures(self.embedding(ids.to(device)), mask.to(device))

    def too_long(self, captions: Sequence[str]) -> list[int]:
        return [i for i, caption in enumerate(captions) if self.vocabulary.length(caption) > self.max_tokens]
