"""Where remembered features are kept: the Protocol, and the store in this process's memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class StoredFeatures:
    """One caption's features, the first `length` rows its tokens; the rest, where there are any, its padding."""

    rows: Float[Tensor, "r d"]
    length: int


@runtime_checkable
class FeatureStore(Protocol):
    """Captions -> their features. What it cannot give back it does not have."""

    def __len__(self) -> int: ...

    def has(self, captions: Sequence[str]) -> list[bool]: ...

    def read(self, captions: Sequence[str]) -> list[StoredFeatures | None]: ...

    def write(self, captions: Sequence[str], features: Sequence[StoredFeatures]) -> None: ...


class MemoryStore:
    """A dict: 2 * width bytes a token in float16, 100,000 captions of 15 MiniLM tokens are 1.2 GB."""

    def __init__(self) -> None:
        self._features: dict[str, StoredFeatures] = {}

    def __len__(self) -> int:
        return len(self._features)

    def has(self, captions: Sequence[str]) -> list[bool]:
        return [caption in self._features for caption in captions]

    def read(self, captions: Sequence[str]) -> list[StoredFeatures | None]:
        return [self._features.get(caption) for caption in captions]

    def write(self, captions: Sequence[str], features: Sequence[StoredFeatures]) -> None:
        self._features.update(zip(captions, features, strict=True))
