"""Features of one set of pictures, kept row by row: what the metrics need that compare single samples."""

from collections.abc import Collection, Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Id = int | str


class FeatureSet:
    """Rows of features on the CPU, with or without the ids of their samples.

    With ids a sample counts once, however often a padding sampler shows it, and `features` has the order of the
    ids, so that seeded subsets are the same for any number of processes. Without, rows stay in order of arrival.
    """

    def __init__(self) -> None:
        self._rows: list[Tensor] = []
        self._ids: list[Id] = []
        self._known: set[Id] = set()
        self.count = 0
        self.dropped = 0  # rows whose id was there before

    @property
    def width(self) -> int | None:
        """Of a row; None as long as there is none."""
        return self._rows[0].shape[1] if self._rows else None

    @property
    def ids(self) -> tuple[Id, ...]:
        """In order of arrival; empty without ids."""
        return tuple(self._ids)

    def add(
        self, features: Float[Tensor, "n d"], ids: Sequence[Id] | None = None, known: Collection[Id] = ()
    ) -> None:
        """Append rows. Those whose id is there already, or in `known`, are dropped and counted.

        Raises ValueError for NaN or infinity (naming the row), another width, another number of ids, or rows
        with ids beside rows without.
        """
        x = require_finite(features.detach().cpu(), self.count)
        x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        if ids is not None and len(ids) != len(x):
            raise ValueError(f"{len(ids)} ids for {len(x)} samples; give one for one")
        if len(x) == 0:
            return
        if self.width not in (None, x.shape[1]):
            raise ValueError(f"features are {x.shape[1]} wide, those before {self.width}; use one network")
        if self.count and (ids is None) == bool(self._ids):
            raise ValueError("some samples have ids and some have none; give ids always or never")
        if ids is not None:
            x = x[self._new(ids, known)]
        if len(x):
            self._rows.append(x)
            self.count += len(x)

    def _new(self, ids: Sequence[Id], known: Collection[Id]) -> list[int]:
        """Places of the ids not seen before, which are now."""
        places = []
        for place, name in enumerate(ids):
            if name not in self._known and name not in known:
                places.append(place)
                self._known.add(name)
                self._ids.append(name)
        self.dropped += len(ids) - len(places)
        return places

    def merge(self, other: "FeatureSet", known: Collection[Id] = ()) -> None:
        """Take in the rows of another set, those with an id seen before left out."""
        self.dropped += other.dropped
        if other.count:
            self.add(torch.cat(other._rows), other.ids or None, known)

    def features(self) -> Float[Tensor, "n d"]:
        """All rows, in the order of their ids if they have any. Raises ValueError for an empty set."""
        if not self.count:
            raise ValueError("the set is empty; add a batch first")
        rows = torch.cat(self._rows)
        if not self._ids:
            return rows
        order = sorted(range(self.count), key=lambda i: (isinstance(self._ids[i], str), self._ids[i]))
        return rows[order]

    def pop_oldest(self, n: int) -> Float[Tensor, "n d"]:
        """Take the first n rows out."""
        rows = torch.cat(self._rows)
        self._rows, self.count = [rows[n:].clone()], self.count - n  # a view would keep all rows alive
        self._known.difference_update(self._ids[:n])
        del self._ids[:n]
        return rows[:n]

    def without(self, known: Collection[Id]) -> "FeatureSet":
        """The rows whose id is not among these."""
        rest = FeatureSet()
        rest.merge(self, known)
        return rest


def require_finite(features: Tensor, first: int = 0) -> Float[Tensor, "n d"]:
    """The features themselves. Raises ValueError naming the first row with NaN or infinity."""
    if features.ndim != 2:
        raise ValueError(f"features must be (n, d), got shape {tuple(features.shape)}; flatten them")
    finite = features.isfinite().all(1)
    if not finite.all():
        raise ValueError(f"feature row {first + int((~finite).nonzero()[0])} is not finite")
    return features


def merged(sets: Iterable[FeatureSet]) -> FeatureSet:
    """All of them as one new set, in order."""
    whole = FeatureSet()
    for part in sets:
        whole.merge(part)
    return whole
