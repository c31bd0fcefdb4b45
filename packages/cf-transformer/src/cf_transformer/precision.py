"""How exact numbers are that must be more exact than weights and tokens."""

import torch
from torch import Tensor


def at_least_fp32(x: Tensor) -> Tensor:
    """x in fp32; in its own precision where that is finer."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
