"""How well a text encoder's latent keeps its tokens: mean cosine of decoded and true tokens, in %   (CrossFlow table 9)

The paper gives no code and does not say whether padding counts. Both readings are reported: `masked` over the tokens
of the captions, the one to quote, and `unmasked` over all slots, where a decoder that repeats the padding scores high.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from cf_eval.distributed import Group
from cf_eval.images.feature_set import Id
from cf_eval.result import Result
from cf_eval.samples import Samples, ids_for, mean


@dataclass(frozen=True)
class TokenSums:
    """Of one caption: the sum of cosines and the number of tokens, of the caption itself and of all slots."""

    masked: float
    tokens: int
    unmasked: float
    slots: int


def token_cosine(a: Float[Tensor, "b n d"], b: Float[Tensor, "b n d"]) -> Float[Tensor, "b n"]:
    """cos(a, b) of each token, in float64; 0 where either is the zero vector, which has no direction."""
    a, b = a.detach().cpu().double(), b.detach().cpu().double()
    norms = a.norm(dim=-1) * b.norm(dim=-1)
    return ((a * b).sum(-1) / norms.where(norms > 0, 1)).where(norms > 0, 0)


class TokenReconstruction:
    """Running reconstruction accuracy; every token weighs the same, so long captions count for more. Mergeable."""

    def __init__(self) -> None:
        self.samples: Samples[TokenSums] = Samples()

    def add_batch(
        self,
        reconstructed: Float[Tensor, "b n d"],
        tokens: Float[Tensor, "b n d"],
        mask: Bool[Tensor, "b n"],
        ids: Sequence[Id] | None = None,
    ) -> None:
        """Add decoded and true tokens of b captions; mask is True on a caption's own tokens.

        Raises ValueError for different shapes, for NaN or infinity, for a caption without a token.
        """
        if reconstructed.shape != tokens.shape or mask.shape != tokens.shape[:2]:
            raise ValueError(
                f"reconstructed {tuple(reconstructed.shape)}, tokens {tuple(tokens.shape)} and mask "
                f"{tuple(mask.shape)} must be (b, n, d), (b, n, d) and (b, n)"
            )
        for name, values in (("reconstructed", reconstructed), ("tokens", tokens)):
            finite = values.isfinite().flatten(1).all(1)
            if not finite.all():
                raise ValueError(
                    f"{name} of caption {int((~finite).nonzero()[0])} of the batch are not finite"
                )
        empty = ~mask.any(1)
        if empty.any():
            raise ValueError(
                f"caption {int(empty.nonzero()[0])} of the batch has no token in its mask; leave it out"
            )
        cosine, own = token_cosine(reconstructed, tokens), mask.cpu()
        for row, kept, id in zip(cosine, own, ids_for(len(tokens), ids), strict=True):
            if self.samples.is_new(id):
                sums = TokenSums(float(row[kept].sum()), int(kept.sum()), float(row.sum()), len(row))
                self.samples.append(sums, id)

    def merge(self, other: "TokenReconstruction") -> None:
        """Take in what another rank or shard has seen."""
        self.samples.merge(other.samples)

    def gathered(self, group: Group | None = None) -> "TokenReconstruction":
        """A new metric that has seen what all ranks of the group have, the same on each. All ranks must call it."""
        whole = copy.copy(self)
        whole.samples = self.samples.gathered(group)
        return whole

    def compute(self) -> Result:
        """masked and unmasked, in %."""
        rows = self.samples.rows
        if not rows:
            raise ValueError("no captions were added; call add_batch first")
        tokens, slots = sum(row.tokens for row in rows), sum(row.slots for row in rows)
        return Result(
            metric="token_reconstruction",
            values={
                "masked": 100 * mean(row.masked for row in rows) * len(rows) / tokens,
                "unmasked": 100 * mean(row.unmasked for row in rows) * len(rows) / slots,
            },
            protocol="mean over tokens of the cosine, in %; masked: tokens of the captions; unmasked: all slots",
            count=len(rows),
            details={"tokens": tokens, "slots": slots, "duplicates_dropped": self.samples.dropped},
        )
