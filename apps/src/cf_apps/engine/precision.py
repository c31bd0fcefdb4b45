"""The number format that a step computes in."""

import platform
from contextlib import AbstractContextManager, nullcontext

import torch

from cf_apps.engine.config import PRECISIONS
from cf_apps.engine.errors import ConfigError


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context to run a forward in: nothing for 'fp32', torch's autocast to bfloat16 for 'bf16'.

    'auto' is bf16 where the device computes in it (`has_bf16`), else fp32.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
    in_bf16 = precision == "bf16" or (precision == "auto" and has_bf16(device))
    return torch.autocast(device.type, torch.bfloat16) if in_bf16 else nullcontext()


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies in bfloat16 itself. One that only imitates it is many times slower than in fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    if platform.machine() in ("x86_64", "AMD64"):
        return torch.cpu._is_avx512_bf16_supported()  # so is what has AMX
    # without oneDNN, as on a Mac, there is nobody to ask, and nothing that would be fast
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def drawn_in(trained_in: str) -> str:
    """The precision to draw with from a run: bf16 ones are also drawn from where there is no bf16."""
    return "auto" if trained_in == "bf16" else trained_in


def slow_precision(device: torch.device, precision: str) -> list[str]:
    """Say so when bf16 was asked for where it is only imitated."""
    if precision != "bf16" or has_bf16(device):
        return []
    return [
        f"fit.precision: bf16 is only imitated on this {device.type}, many times slower than fp32; auto takes fp32 here"
    ]
