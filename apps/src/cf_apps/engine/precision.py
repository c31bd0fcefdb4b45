"""The number format that a step computes in."""

from contextlib import AbstractContextManager, nullcontext

import torch

from cf_apps.engine.config import PRECISIONS
from cf_apps.engine.errors import ConfigError


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context to run a forward in: nothing for 'fp32', torch's autocast to bfloat16 for 'bf16'.

    On CPUs bf16 pays only where the processor has AMX or AVX512-BF16.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, torch.bfloat16)
