"""What the metrics share that compare a generated set with a real one: filling both, and joining ranks."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from cf_eval.distributed import Group, all_ranks
from cf_eval.images.feature_set import FeatureSet, Id
from cf_eval.images.feature_stream import FeatureStream
from cf_eval.images.features import Features, features_of
from cf_eval.images.read import Images
from cf_eval.result import Json, Result

SomeStore = TypeVar("SomeStore", FeatureSet, FeatureStream)


class TwoSets(ABC, Generic[SomeStore]):
    """Streams real and generated pictures through one network and keeps what `compute` needs of them."""

    def __init__(self, features: Features, new_store: Callable[[], SomeStore]) -> None:
        self.features = features
        self._new_store = new_store
        self.real = new_store()
        self.generated = new_store()

    @abstractmethod
    def compute(self) -> Result:
        """The metric of all that was added. Raises ValueError while there is too little."""

    def add_batch(
        self,
        *,
        real: Images = None,
        generated: Images = None,
        value_range: str = "uint8",
        ids: Sequence[Id] | None = None,
        batch_size: int = 32,
    ) -> None:
        """Add pictures to one of the sets: a tensor (b, 3, h, w), an array (b, h, w, 3), Pillow images or a folder.

        value_range: of tensors and arrays, "uint8", "0..1" or "-1..1"; a wrong one is refused. ids: one for each
        picture; pictures that come twice count once. batch_size: how many the network sees at a time.
        """
        store, images = self._which(real, generated)
        store.add(features_of(images, self.features, value_range, batch_size, ids), ids)

    def add_features(
        self,
        *,
        real: Float[Tensor, "n d"] | None = None,
        generated: Float[Tensor, "n d"] | None = None,
        ids: Sequence[Id] | None = None,
    ) -> None:
        """Add what `self.features` gave already, so that several metrics need the network once."""
        store, rows = self._which(real, generated)
        store.add(rows, ids)

    def _which(self, real: Images, generated: Images) -> tuple[SomeStore, Images]:
        if (real is None) == (generated is None):
            raise ValueError("give either real=... or generated=..., one at a time")
        return (self.real, real) if generated is None else (self.generated, generated)

    def merge(self, other: "TwoSets[SomeStore]") -> None:
        """Take in what another rank or shard has seen through the same network."""
        if (type(other), other.features.name) != (type(self), self.features.name):
            raise ValueError(
                f"cannot merge {type(other).__name__} of {other.features.name!r} into "
                f"{type(self).__name__} of {self.features.name!r}"
            )
        self.real.merge(other.real)
        self.generated.merge(other.generated)

    def gathered(self, group: Group | None = None) -> "TwoSets[SomeStore]":
        """A new metric that has seen what all ranks of the group have, the same on each. All ranks must call it."""
        whole = copy.copy(self)
        whole.real, whole.generated = self._new_store(), self._new_store()
        for real, generated in all_ranks((self.real, self.generated), group):
            whole.real.merge(real)
            whole.generated.merge(generated)
        return whole

    def require_samples(self, least: int, metric: str) -> None:
        """Raise ValueError naming the set that has fewer samples."""
        for name, count in (("real", self.real.count), ("generated", self.generated.count)):
            if count < least:
                raise ValueError(f"the {name} set has {count} samples; {metric} needs at least {least}")

    def details(self) -> dict[str, Json]:
        """Sample counts and hashes of the weights, for the result."""
        dropped = self.real.dropped + self.generated.dropped
        counts: dict[str, Json] = {"real_count": self.real.count, "generated_count": self.generated.count}
        return {**counts, "duplicates_dropped": dropped, **self.features.weights}


def in_float64(rows: Tensor) -> Float[Tensor, "n d"]:
    """What every comparison of single samples is computed in."""
    return rows.to(torch.float64)
