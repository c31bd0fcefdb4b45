"""Features of one set for a Fréchet distance: all their mean and covariance says, in bounded memory."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from cf_eval.images.feature_set import FeatureSet, Id
from cf_eval.moments import Moments


@dataclass(frozen=True)
class Folded:
    """Rows that are gone but for their moments and their ids."""

    moments: Moments
    ids: frozenset[Id]


class FeatureStream:
    """The latest rows as they came, at most twice their width, and the moments of all rows before.

    A set with fewer rows than they are wide is thus kept whole, which its distance needs to be exact; and what a
    padding sampler repeats at the end of a rank's share is still there to be dropped when ranks merge.
    """

    def __init__(self) -> None:
        self.recent = FeatureSet()
        self.folded: Folded | None = None

    @property
    def width(self) -> int | None:
        """Of a row; None as long as there is none."""
        return len(self.folded.moments.mean) if self.folded else self.recent.width

    @property
    def count(self) -> int:
        """How many samples were seen."""
        return self.recent.count + (self.folded.moments.count if self.folded else 0)

    @property
    def dropped(self) -> int:
        """How many were left out because their id had come before."""
        return self.recent.dropped

    def add(self, features: Float[Tensor, "n d"], ids: Sequence[Id] | None = None) -> None:
        """Append rows; see FeatureSet.add for what is refused."""
        self._require_like(features.shape[-1] if len(features) else None, ids is not None)
        self.recent.add(features, ids, self._folded_ids())
        width = self.recent.width
        if width is not None and self.recent.count > 2 * width:
            self._fold(self.recent.count - width)

    def merge(self, other: "FeatureStream") -> None:
        """Take in what another rank or shard has seen. A sample of both counts once.

        Raises ValueError where both have folded the same sample away: it can no longer be taken out.
        """
        self._require_like(other.width, bool(other._all_ids()))
        both = self._folded_ids() & other._folded_ids()
        if both:
            raise ValueError(
                f"{len(both)} samples were seen by two ranks, e.g. id {sorted(both, key=str)[0]!r}, and are summed "
                "up already; give every rank its own samples (DistributedSampler(drop_last=True), or no sampler)"
            )
        self.recent = self.recent.without(other._folded_ids())
        self.recent.merge(other.recent, self._folded_ids())
        if other.folded is not None:
            self.folded = other.folded if self.folded is None else _joined(self.folded, other.folded)

    def summary(self) -> Moments | Float[Tensor, "n d"]:
        """The rows themselves as long as none was folded away, else their moments. Raises where there are none."""
        if self.folded is None:
            return self.recent.features().double()
        if not self.recent.count:
            return self.folded.moments
        return self.folded.moments.update(self.recent.features())

    def _fold(self, n: int) -> None:
        """The oldest n rows to moments: many at a time, since each time costs a d x d product."""
        ids = frozenset(self.recent.ids[:n])
        part = Folded(Moments.of(self.recent.pop_oldest(n)), ids)
        self.folded = part if self.folded is None else _joined(self.folded, part)

    def _folded_ids(self) -> frozenset[Id]:
        return self.folded.ids if self.folded else frozenset()

    def _all_ids(self) -> frozenset[Id]:
        return self._folded_ids().union(self.recent.ids)

    def _require_like(self, width: int | None, named: bool) -> None:
        if self.width is None or width is None:
            return
        if width != self.width:
            raise ValueError(f"features are {width} wide, those before {self.width}; use one network")
        if named != bool(self._all_ids()):
            raise ValueError("some samples have ids and some have none; give ids always or never")


def _joined(a: Folded, b: Folded) -> Folded:
    return Folded(a.moments.merge(b.moments), a.ids | b.ids)


def as_moments(summary: Moments | Tensor) -> Moments:
    """Of rows or of what is moments already."""
    return Moments.of(summary) if isinstance(summary, Tensor) else summary
