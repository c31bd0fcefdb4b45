"""Rows of per-sample results: each sample once, whichever rank or padded batch it came from."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from cf_eval.distributed import Group, all_ranks
from cf_eval.images.feature_set import Id

Row = TypeVar("Row")


@dataclass
class Samples(Generic[Row]):
    """One row per sample in the order added. A sample whose id came before is dropped and counted.

    Samplers repeat samples to fill the last batch of a rank; with ids they count once. Samples without an id are all
    kept.
    """

    rows: list[Row] = field(default_factory=list)
    ids: list[Id | None] = field(default_factory=list)
    dropped: int = 0
    _seen: set[Id] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.rows)

    def is_new(self, id: Id | None) -> bool:
        """False, and counted, when the id came before: ask before doing the work of scoring."""
        known = id is not None and id in self._seen
        self.dropped += known
        return not known

    def append(self, row: Row, id: Id | None = None) -> None:
        """Keep the row of a sample that `is_new`."""
        self.rows.append(row)
        self.ids.append(id)
        if id is not None:
            self._seen.add(id)

    def merge(self, other: "Samples[Row]") -> None:
        """Take in what another rank or shard has seen."""
        self.dropped += other.dropped
        for row, id in zip(other.rows, other.ids, strict=True):
            if self.is_new(id):
                self.append(row, id)

    def gathered(self, group: Group | None = None) -> "Samples[Row]":
        """The samples of all ranks, the same on each. All ranks of the group must call it."""
        whole: Samples[Row] = Samples()
        for part in all_ranks(self, group):
            whole.merge(part)
        return whole


def ids_for(count: int, ids: Sequence[Id] | None) -> Sequence[Id | None]:
    """The ids of a batch, None for each where none were given. Raises ValueError unless there are `count`."""
    if ids is None:
        return [None] * count
    if len(ids) != count:
        raise ValueError(f"{len(ids)} ids for {count} samples; give one for one")
    return list(ids)


def mean(values: Iterable[float]) -> float:
    """Summed exactly, so that neither order nor sharding moves it."""
    listed = list(values)
    return math.fsum(listed) / len(listed)
