"""What launchers share: registration of an op, strides, precision, and how the work is cut into programs."""

from collections.abc import Callable
from math import ceil
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import _get_current_dispatch_mode

NAMESPACE = "cf_transformer"
PROGRAMS = 8 * 132  # of a kernel that sums over tokens: eight for every multiprocessor of an H100
OFFSETS = 2**31  # what an offset inside one sample must stay below; samples are reached by int64


def register(schema: str, launch: Callable[..., Any], fake: Callable[..., Any]) -> Callable[..., Any]:
    """Make `launch` the op `cf_transformer::schema`, opaque to tracing, with `fake` for its shapes; returns its call.

    The call goes straight to `launch`, since the dispatcher costs more than a small kernel, unless somebody watches: a
    compiler, a dispatch mode, a tensor subclass or a function transform.
    """
    name, _, signature = schema.partition("(")
    torch.library.define(f"{NAMESPACE}::{name}", f"({signature}")
    torch.library.impl(f"{NAMESPACE}::{name}", ("cpu", "cuda"), launch)  # the CPU is for the interpreter
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake)
    op = getattr(getattr(torch.ops, NAMESPACE), name).default

    def call(*arguments: Any) -> Any:
        watched = torch.compiler.is_compiling() or _get_current_dispatch_mode() or not _plain(arguments)
        return op(*arguments) if watched else launch(*arguments)

    return call


def first_order(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate the backward of a Function that autograd cannot look into: asking for a graph of it is an error.

    torch's `once_differentiable` alone makes a silent zero of a derivative that flows through saved tensors only.
    """
    once = once_differentiable(backward)

    def checked(ctx: Any, *grads: Tensor | None) -> Any:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError(
                "the gradient of a Triton kernel cannot be differentiated: leave out create_graph, "
                "or run the forward pass under kernels.using('torch')"
            )
        return once(ctx, *grads)

    return checked


def _plain(argument: Any) -> bool:
    """Whether a tensor, or every tensor in a sequence, is one with memory of its own that a kernel can read."""
    if isinstance(argument, Tensor):
        return type(argument) in (Tensor, nn.Parameter) and torch._C._has_storage(argument)
    return all(map(_plain, argument)) if isinstance(argument, (list, tuple)) else True


def run(kernel: Any, grid: tuple[int, ...], first: Tensor, *others: Any, **constants: Any) -> None:
    """Launch a kernel on the device of its first argument."""
    with torch.cuda.device_of(first):
        kernel[grid](first, *others, **constants)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The precision of all arithmetic: fp32; fp64 for fp64, in which tests see every wrong formula."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def in_triton(dtype: torch.dtype) -> Any:
    """Triton's name of a dtype."""
    import triton.language as tl

    return getattr(tl, {torch.float64: "float64", torch.float32: "float32"}.get(dtype, str(dtype)[6:]))


def with_adjacent_channels(x: Tensor) -> Tensor:
    """x, or a copy of it if a kernel cannot walk through it, as may happen to a gradient."""
    return x.contiguous() if not_adjacent(x=x) else x


def not_adjacent(**tensors: Tensor | None) -> str:
    """Which of the (..., n, d) tensors a kernel cannot walk through, in words; empty if it can walk through all."""
    for name, x in tensors.items():
        if x is None:
            continue
        if x.stride(-1) != 1 and x.shape[-1] > 1:
            return f"the last axis of {name} has stride {x.stride(-1)}, not 1"
        if x.shape[-2] * max(x.stride(-2), x.shape[-1]) > OFFSETS:
            return f"a sample of {name} spans more than 2**31 elements"
    return ""


def steps(x: Tensor | None) -> tuple[int, int]:
    """Strides over samples and tokens; a single sample is every sample's."""
    if x is None:
        return 0, 0
    return 0 if x.shape[0] == 1 else x.stride(0), x.stride(1)


def row_blocks(n: int, rows: int) -> int:
    """How many blocks of `rows` cover n rows."""
    return ceil(n / rows)


def rows_per_chunk(n: int, rows: int, samples: int) -> int:
    """Rows that one program sums up, a multiple of `rows`, such that `samples` of n rows make about PROGRAMS programs.

    Depends on shapes only, so that sums are taken in the same order whenever they are taken.
    """
    chunks = min(row_blocks(n, rows), ceil(PROGRAMS / samples))
    return row_blocks(n, rows * chunks) * rows


def summed_like(parts: Float[Tensor, "b 1 d"], like: Tensor) -> Tensor:
    """The gradient of one vector per sample, added up over the samples if they share it, in its precision."""
    shared = like.shape[0] < parts.shape[0]
    return (parts.sum(dim=0, keepdim=True) if shared else parts).to(like.dtype)
