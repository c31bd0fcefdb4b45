"""Tensors of which a rank holds a part (PyTorch's DTensor), told from whole ones."""

import sys
from collections.abc import Sequence

from torch import Tensor


def is_sharded(x: Tensor) -> bool:
    """Whether x is a DTensor. Where nobody has imported the class, which takes seconds, there is none."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


def local(x: Tensor) -> Tensor:
    """What this rank holds of x, not a copy; x itself where it is whole."""
    return x.to_local() if is_sharded(x) else x  # pyright: ignore[reportAttributeAccessIssue]


def whole(x: Tensor) -> Tensor:
    """x in one piece, on every rank. Collective where it is sharded."""
    return x.full_tensor() if is_sharded(x) else x  # pyright: ignore[reportAttributeAccessIssue]


def alike(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Whole ones apart from sharded ones: torch's operations on lists take either, not both. No empty lists."""
    kinds = ([x for x in tensors if is_sharded(x) is sharded] for sharded in (False, True))
    return [kind for kind in kinds if kind]
