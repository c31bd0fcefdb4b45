"""From one number per element to one per sample, named: a weight means nothing without its reduction."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

Reduction = Literal["sum", "mean"]


def reduce_samples(values: Float[Tensor, "b *d"], reduction: Reduction) -> Float[Tensor, "b"]:
    """Sum or mean over all axes but the first."""
    match reduction:
        case "sum":
            return values.flatten(1).sum(dim=1)
        case "mean":
            return values.flatten(1).mean(dim=1)
        case _:
            raise ValueError(f"unknown reduction {reduction!r}; known: mean, sum")
