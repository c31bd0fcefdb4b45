"""The card: what it is, and what it reaches at copying and at products."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from gpu.floors import Rates
from gpu.timing import Clock
from torch.nn.attention import SDPBackend

GIB = 2**30
COPIED = GIB  # bytes; twenty times any L2 cache
SIDE = {torch.bfloat16: 8192, torch.float32: 4096}
SHAPE_ASKED = (64, 16, 257, 64)  # (b, k, n, e): the attention of the 951M model with its indicator


def facts(device: torch.device) -> dict[str, Any]:
    """Names and versions; the card's own facts where there is one."""
    found: dict[str, Any] = {
        "torch": torch.__version__,
        "triton": _version("triton"),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        found |= {
            "device": card.name,
            "capability": f"{card.major}.{card.minor}",
            "multiprocessors": card.multi_processor_count,
            "l2_bytes": card.L2_cache_size,
            "memory_bytes": card.total_memory,
        }
    else:
        found["device"] = "cpu"
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def chosen_backend(device: torch.device, shape: tuple[int, int, int, int] = SHAPE_ASKED) -> str:
    """Which of its ways scaled_dot_product_attention takes for bf16 q, k, v of (b, k, n, e)."""
    q = torch.empty(shape, dtype=torch.bfloat16, device=device)
    return SDPBackend(torch._fused_sdp_choice(q, q, q)).name


def copy_rate(clock: Clock, device: torch.device) -> dict[str, float]:
    """Bytes read and written a second by a copy within the device's memory."""
    source = torch.randint(256, (1024 if clock.dry else COPIED,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    figures = clock.op(lambda _: lambda: target.copy_(source), n_sets=1)
    if not torch.equal(target, source):
        raise ArithmeticError("the copy is not what was copied")
    return figures and {**figures, "per_second": 2 * source.nbytes / (1e-6 * figures["us"])}


def product_rate(clock: Clock, device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """Flops a second of a large square product of random numbers; fp32 is not tf32, as torch has it by default."""
    side = 64 if clock.dry else SIDE[dtype]
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    figures = clock.op(lambda _: lambda: a @ b, n_sets=1)
    return figures and {**figures, "per_second": 2 * side**3 / (1e-6 * figures["us"])}


def measure_card(clock: Clock, device: torch.device) -> dict[str, Any]:
    """Facts, rates and the attention that is chosen: the row every floor is taken from."""
    return {
        **facts(device),
        "attention_at_257": chosen_backend(device),
        "copy": copy_rate(clock, device),
        "matmul": product_rate(clock, device, torch.bfloat16),
        "fp32": product_rate(clock, device, torch.float32),
    }


def rates(row: dict[str, Any]) -> Rates | None:
    """The rates of a measured card; None of a dry run."""
    found = [row[name].get("per_second") for name in ("copy", "matmul", "fp32")]
    return None if None in found else Rates(*found)
