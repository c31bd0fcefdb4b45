"""Several training sets as one, each with its share of the samples."""

from dataclasses import dataclass
from fractions import Fraction

import torch
from jaxtyping import Int64
from torch import Tensor

from cf_apps.data.depth_pairs import DepthBatch, DepthPair, DepthPairs
from cf_apps.engine.ranks.draws import by_itself


@dataclass(frozen=True)
class Mixed:
    """Sets of which each gives its share of the samples, whatever its size; the smaller ones are repeated.

    shares: parts of a whole, e.g. (9, 1). One pass holds every pair of every set at least once. Raises ValueError
    where sets and shares do not go together.
    """

    parts: tuple[DepthPairs, ...]
    shares: tuple[int, ...]
    name: str

    def __post_init__(self) -> None:
        if len(self.parts) != len(self.shares) or not self.parts or min(self.shares) < 1:
            raise ValueError(f"{len(self.parts)} sets need as many positive shares, got {self.shares}")

    def __len__(self) -> int:
        """Rounds of sum(shares) samples, as many as the set that takes the most rounds asks for."""
        rounds = max(Fraction(len(part), share) for part, share in zip(self.parts, self.shares, strict=True))
        return sum(self.shares) * -(-rounds.numerator // rounds.denominator)

    def batch(self, indices: Int64[Tensor, "b"], generator: torch.Generator | None = None) -> DepthBatch:
        """The sets' pairs at one size; all sets must have been opened with the same."""
        places = [self._place(index) for index in indices.tolist()]
        rows: dict[int, DepthPair] = {}
        dice = None if generator is None else by_itself(generator)  # how many are whose depends on the rows
        for number, part in enumerate(self.parts):
            wanted = [row for row, (of, _) in enumerate(places) if of == number]
            if wanted:
                got = part.batch(torch.tensor([places[row][1] for row in wanted]), dice)
                rows |= {
                    row: DepthPair(got.images[k], got.depth[k], got.valid[k]) for k, row in enumerate(wanted)
                }
        return DepthBatch.of([rows[row] for row in range(len(places))])

    def pair(self, index: int) -> DepthPair:
        part, place = self._place(index)
        return self.parts[part].pair(place)

    def _place(self, index: int) -> tuple[int, int]:
        """(set, place in it): each round gives every set its share, in order."""
        rounds, within = divmod(index, sum(self.shares))
        for number, share in enumerate(self.shares):
            if within < share:
                return number, (rounds * share + within) % len(self.parts[number])
            within -= share
        raise AssertionError("a remainder is smaller than the divisor")
