"""What is compiled: every row of the table of tiles, and launches at the widths and lengths of real models.

Nothing here repeats how a kernel is called. A scene calls the ops of one module as the package does, forward and
backward, and the launches are recorded from it.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.resources import files
from pkgutil import iter_modules
from typing import Any

import torch
from compile_for_sm90 import Budget, Launch, recorded
from torch import Tensor
from triton.runtime.jit import JITFunction

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
PACKAGE = "cf_transformer.kernels"
ENDLESS = 2**20  # a row with at least this width has no end


@dataclass(frozen=True)
class Case:
    """A launch and what its machine code must keep to."""

    launch: Launch
    budget: Budget


# ---------------------------------------------------------------------------------------------------------- scenes


def ops() -> Any:
    """The registered ops of the package."""
    for name in SCENES:
        import_module(f"{PACKAGE}.{name}")
    return torch.ops.cf_transformer


def td_norm(width: int, dtype: torch.dtype, norm: str = "layer") -> None:
    """Residual add and norm of two samples of 257 tokens, with a gain and a shift per sample."""
    x = torch.empty(2, 257, width, dtype=dtype)
    gamma = torch.empty(2, 1, width)
    beta = gamma if norm == "layer" else None
    y, s, centre, spread = ops().add_td_norm_forward(x, x, gamma, beta, norm)
    ops().add_td_norm_backward(y, y, s, gamma, centre, spread, True, norm == "layer", norm)


def time_lerp(width: int, dtype: torch.dtype) -> None:
    """gamma(t) of 2 and of 3 vectors for two samples."""
    leaves = [torch.empty(m, width, dtype=dtype) for m in (2, 3) for _ in range(4)]
    t = torch.empty(2)
    ops().time_lerps_backward(ops().time_lerps_forward(leaves, t), leaves, t, True)


def gated(width: int, dtype: torch.dtype) -> None:
    """GEGLU of 2 x 257 tokens with `width` channels after the gate."""
    ab = torch.empty(2, 257, 2 * width, dtype=dtype)
    ops().geglu_backward(ops().geglu_forward(ab), ab)


def concat_norm(width: int, dtype: torch.dtype) -> None:
    """Layer norm over three maps of `width` channels."""
    maps = [torch.empty(2, 257, width, dtype=dtype) for _ in range(3)]
    gamma = torch.empty(2, 1, 3 * width)
    y, centre, spread = ops().concat_td_norm_forward(maps, gamma, gamma)
    ops().concat_td_norm_backward(y, maps, gamma, centre, spread, True, True)


def attention(width: int, dtype: torch.dtype, n: int = 257) -> None:
    """Attention over n tokens with 16 heads of `width`."""
    qkv = torch.empty(2, n, 3, 16, width, dtype=dtype)
    out, lse = ops().attention_forward(qkv)
    ops().attention_backward(out, qkv, out, lse)


def qk_norm_rope(width: int, dtype: torch.dtype, wants_table: bool = True) -> None:
    """Norm and rotation of 257 tokens with 16 heads of `width`."""
    qkv = torch.empty(2, 257, 3, 16, width, dtype=dtype)
    table, gain = torch.empty(257, width // 2), torch.empty(2, 16)
    out, rstd = ops().qk_norm_rope_forward(qkv, table, table, gain)
    ops().qk_norm_rope_backward(out, out, table, table, gain, rstd, wants_table)


SCENES: dict[str, Callable[..., None]] = {
    scene.__name__: scene for scene in (td_norm, time_lerp, gated, concat_norm, attention, qk_norm_rope)
}

# where a module's rows are not called as the module is
TABLE_NAMES = {"time_lerp": "time_lerps", "gated": "geglu"}

MODELS = {  # beside the rows of the table: widths that are padded, lengths that are masked, fewer gradients
    "td_norm": [(960, BF16), (1152, BF16), (1024, BF16, "rms"), (1024, FP32, "rms")],
    "time_lerp": [(960, FP32)],
    "gated": [(2560, BF16)],
    "concat_norm": [(960, BF16)],
    "attention": [
        (60, BF16),
        (72, BF16),
        (32, FP16),
        (64, BF16, 256),
        (64, BF16, 250),
        (128, BF16, 250),
        (64, FP32),
    ],
    "qk_norm_rope": [(60, BF16), (72, BF16), (64, BF16, False), (64, FP32)],
}


# ----------------------------------------------------------------------------------------------------------- cases


@cache
def launches(scene: str, *arguments: Any) -> list[Launch]:
    """What a scene launches."""
    with recorded() as found, torch.no_grad():
        SCENES[scene](*arguments)
    return found


def table() -> dict[str, list[dict[str, Any]]]:
    """The rows of the table of tiles, by the name of their kernel."""
    return json.loads(files(PACKAGE).joinpath("configs/sm90.json").read_text())["tiles"]


def kernels() -> dict[str, JITFunction]:
    """Every kernel of the package by `module.function`; a name with an underscore is a part of others."""
    folder = import_module(f"{PACKAGE}.triton")
    found = {}
    for info in iter_modules(folder.__path__):
        module = import_module(f"{folder.__name__}.{info.name}")
        for name, value in vars(module).items():
            if isinstance(value, JITFunction) and not name.startswith("_"):
                found[f"{info.name}.{name}"] = value
    return found


@cache
def cases() -> dict[str, Case]:
    """All of them by name: `module.function width dtype ...`."""
    return of_table() | dict(_of_models())


def row_of(kernel: str) -> str:
    """The name under which the table has the tiles of `module.function`."""
    module, _, function = kernel.partition(".")
    return f"{TABLE_NAMES.get(module, module)}_{function}"


def of_table() -> dict[str, Case]:
    """One for every row of the table of tiles."""
    found = {}
    for kernel in kernels():
        for row in table()[row_of(kernel)]:
            name = "bfloat16" if "bfloat16" in row["dtypes"] else "float32"
            width = row["width"] if row["width"] < ENDLESS else 4096
            for launch in launches(kernel.partition(".")[0], width, getattr(torch, name)):
                if _name(launch) == kernel:
                    _must_be_of(row, launch)
                    found[f"{kernel} {width} {name}"] = Case(launch, _budget(launch, width))
    return found


def _of_models() -> Iterator[tuple[str, Case]]:
    for module, models in MODELS.items():
        for width, dtype, *rest in models:
            words = " ".join(str(word) for word in (width, str(dtype)[6:], *rest))
            for launch in launches(module, width, dtype, *rest):
                yield f"{_name(launch)} {words}", Case(launch, _budget(launch, width))


def _name(launch: Launch) -> str:
    return f"{launch.kernel.fn.__module__.rpartition('.')[2]}.{launch.kernel.fn.__name__}"


def _must_be_of(row: dict[str, Any], launch: Launch) -> None:
    used = launch.arguments["ROWS"], launch.options["num_warps"], launch.options["num_stages"]
    assert used == (row["rows"], row["warps"], row["stages"]), f"{_name(launch)} took {used}, not {row}"


def _budget(launch: Launch, width: int) -> Budget:
    """No kernel may spill; attention in 16 bits uses the tensor cores; a load is as wide as the rows of x allow."""
    name = _name(launch)
    dtypes = {value.dtype for value in launch.arguments.values() if isinstance(value, Tensor)}
    tensor_cores = name.startswith("attention.") and bool(dtypes & {BF16, FP16})
    if name == "time_lerp.backward":  # short tiles: a thread has one element of a leaf
        return Budget(widest_load=4)
    row = width // 2 if name.startswith("qk_norm_rope.") else width
    return Budget(tensor_cores, widest_load=min(16, 2 * (row & -row)))
