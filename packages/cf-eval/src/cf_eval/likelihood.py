"""Log-likelihoods in nats, of data scaled to some range, as bits per dimension of the 8-bit data they stand for.

    bits per dimension = - ln p(x) / (d ln 2) + log2(levels / range)       (Lipman et al. eq. 36, 37)

d is the number of values of x. Scaling 256 levels to a range of length r multiplies the density by (256 / r)^d: the
offset is 7 for data in [-1, 1] and 8 for [0, 1].
"""

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cf_eval.distributed import Group
from cf_eval.images.feature_set import Id
from cf_eval.images.read import VALUE_RANGES
from cf_eval.result import Result
from cf_eval.samples import Samples, ids_for, mean

LEVELS = 256

# "0..1" and "-1..1" as everywhere in this package, and bytes as numbers from 0 to 256
RANGES: Mapping[str, tuple[float, float]] = {
    "0..256": (0.0, 256.0),
    **{name: ends for name, ends in VALUE_RANGES.items() if ends is not None},
}


def offset_bits(value_range: str | tuple[float, float], levels: int = LEVELS) -> float:
    """log2(levels / (high - low)): what the scaling of the data adds to each dimension, in bits.

    value_range: "0..1", "-1..1", "0..256", or the two values that 0 and `levels` were mapped to.
    """
    if isinstance(value_range, str):
        if value_range not in RANGES:
            raise ValueError(
                f"unknown value_range {value_range!r}; known: {', '.join(RANGES)}, or (low, high)"
            )
        value_range = RANGES[value_range]
    low, high = value_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"a value range must be (low, high) with low < high, got {value_range}")
    if levels < 2:
        raise ValueError(f"levels must be at least 2, got {levels}; 8-bit data have 256")
    return math.log2(levels / (high - low))


def bits_per_dimension(
    log_p: Float[Tensor, "*b"],
    dimensions: int,
    value_range: str | tuple[float, float] = "-1..1",
    levels: int = LEVELS,
) -> Float[Tensor, "*b"]:
    """Bits per dimension of ln p in nats, of data with so many dimensions (3 h w of a picture)."""
    return -log_p / (_positive(dimensions) * math.log(2)) + offset_bits(value_range, levels)


def nats(
    bits: Float[Tensor, "*b"],
    dimensions: int,
    value_range: str | tuple[float, float] = "-1..1",
    levels: int = LEVELS,
) -> Float[Tensor, "*b"]:
    """ln p of data in that range: the inverse of `bits_per_dimension`."""
    return (offset_bits(value_range, levels) - bits) * (_positive(dimensions) * math.log(2))


def importance_weighted(log_p: Float[Tensor, "k *b"]) -> Float[Tensor, "*b"]:
    """ln (1/K) sum_k p_k of K uniform dequantisations of the same data   (Lipman et al. table 4)

    A bound on the likelihood of the 8-bit data that gets tighter with K. In float64.
    """
    if log_p.ndim == 0 or len(log_p) == 0:
        raise ValueError(f"log_p must be (k, ...) with k >= 1 dequantisations, got {tuple(log_p.shape)}")
    return log_p.double().logsumexp(0) - math.log(len(log_p))


def _positive(dimensions: int) -> int:
    if dimensions < 1:
        raise ValueError(f"dimensions must be at least 1, got {dimensions}; a picture has 3 h w")
    return dimensions


class BitsPerDimension:
    """Mean bits per dimension over samples, with its standard error; mergeable.

    dimensions, value_range, levels: as in `bits_per_dimension`.
    """

    def __init__(
        self, dimensions: int, value_range: str | tuple[float, float] = "-1..1", levels: int = LEVELS
    ) -> None:
        self.dimensions = _positive(dimensions)
        self.value_range = value_range
        self.levels = levels
        self.offset = offset_bits(value_range, levels)
        self.samples: Samples[float] = Samples()

    def add_batch(self, log_p: Float[Tensor, "b"], ids: Sequence[Id] | None = None) -> None:
        """Add ln p of b samples in nats. Raises ValueError for NaN or infinity, naming the sample."""
        if not log_p.isfinite().all():
            wrong = int((~log_p.isfinite()).nonzero()[0])
            raise ValueError(f"log_p of sample {wrong} of the batch is {float(log_p[wrong])}")
        bits = bits_per_dimension(
            log_p.detach().cpu().double(), self.dimensions, self.value_range, self.levels
        )
        for value, id in zip(bits.tolist(), ids_for(len(bits), ids), strict=True):
            if self.samples.is_new(id):
                self.samples.append(value, id)

    def merge(self, other: "BitsPerDimension") -> None:
        """Take in what another rank or shard has seen of the same data."""
        if (self.dimensions, self.offset) != (other.dimensions, other.offset):
            raise ValueError(
                f"cannot merge {other.dimensions} dimensions, offset {other.offset:g} bits, into "
                f"{self.dimensions}, offset {self.offset:g}"
            )
        self.samples.merge(other.samples)

    def gathered(self, group: Group | None = None) -> "BitsPerDimension":
        """A new metric that has seen what all ranks of the group have, the same on each. All ranks must call it."""
        whole = copy.copy(self)
        whole.samples = self.samples.gathered(group)
        return whole

    def compute(self) -> Result:
        """bits_per_dimension, and details["standard_error"] of that mean (None for one sample)."""
        if not self.samples.rows:
            raise ValueError("no samples were added; call add_batch first")
        bits = torch.tensor(self.samples.rows, dtype=torch.float64)
        several = len(bits) > 1
        return Result(
            metric="likelihood",
            values={"bits_per_dimension": mean(self.samples.rows)},
            protocol=f"{self.dimensions} dimensions, offset {self.offset:g} bits ({self.levels} levels)",
            count=len(bits),
            details={
                "standard_error": float(bits.std() / len(bits) ** 0.5) if several else None,
                "duplicates_dropped": self.samples.dropped,
            },
        )
