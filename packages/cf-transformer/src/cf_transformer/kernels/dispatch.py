"""Which implementation of an op runs, plain torch or Triton, and why."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd import forward_ad

Mode = Literal["auto", "torch", "triton"]
MODES: tuple[Mode, ...] = get_args(Mode)
VARIABLE = "CF_KERNELS"  # the environment variable that sets the mode of a process
OLDEST = (8, 0)  # compute capability: bf16 tensor cores
KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
HAS_TRITON = find_spec("triton") is not None  # it is imported when the first kernel runs
SMALL = 2**20  # elements; an estimate from launch costs, not yet measured


def constant(function: Callable[..., Any]) -> Callable[..., Any]:
    """Have torch.compile call `function` instead of tracing it, and take what it returns as a constant.

    All that `torch.compiler.assume_constant_result` does; but that one imports the compiler, and triton with it.
    """
    function._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]
    return function


@dataclass(frozen=True)
class Choice:
    """What ran last for an op, and the reason in words."""

    op: str
    backend: Literal["torch", "triton"]
    why: str


class _Policy:
    """The mode of this process; one object, so that a compiled graph is guarded on it."""

    def __init__(self) -> None:
        self.mode: Mode = _known(os.environ.get(VARIABLE, "auto"))
        self.made: dict[str, Choice] = {}


def _known(mode: str) -> Mode:
    for known in MODES:
        if mode == known:
            return known
    raise ValueError(f"unknown kernel mode {mode!r}; known: {', '.join(MODES)} (set by {VARIABLE})")


_policy = _Policy()


@contextmanager
def using(mode: Mode) -> Iterator[None]:
    """Run ops by `torch`, by `triton` (an error where it cannot), or `auto`: Triton where it is known to pay."""
    before, _policy.mode = _policy.mode, _known(mode)
    try:
        yield
    finally:
        _policy.mode = before


def explain() -> list[Choice]:
    """What each op ran on when it was last called eagerly, and why; an op that has not run is not listed."""
    return list(_policy.made.values())


def by_triton(op: str, x: Tensor, *, refusal: str = "", loses: str = "") -> bool:
    """Whether `op` on x runs its Triton kernel.

    `refusal` says why the kernel cannot take these shapes, `loses` why torch is the faster one here; both empty where
    there is no reason. Mode `triton` overrules `loses` but not `refusal`, which is then a ValueError.
    """
    refusal = refusal or _unable(x)
    wanted = _policy.mode
    if wanted == "triton" and refusal:
        raise ValueError(f"{op} cannot run its Triton kernel: {refusal}; use mode auto or torch")
    if wanted == "torch":
        why = "mode is torch"
    elif wanted == "triton":
        why = "mode is triton"
    else:
        why = refusal or loses or "the kernel takes it"
    triton = wanted == "triton" or (wanted == "auto" and not refusal and not loses)
    if not torch.compiler.is_compiling():  # a graph keeps no diary
        _policy.made[op] = Choice(op, "triton" if triton else "torch", why)
    return triton


def not_worth_it(elements: int, *inputs: Tensor | None) -> str:
    """Why torch is the faster one for an op that does little but move `elements` through memory; for `loses`.

    What a compiler fuses by itself is the forward pass: its backward of a norm with a gain per sample reads everything
    twice, and a kernel's once. Arithmetic on memory traffic, not yet measured on a GPU.
    """
    if elements < SMALL:
        return "it has fewer than 2**20 elements, a launch would cost more than it saves"
    return fused_anyway(*inputs)


def fused_anyway(*inputs: Tensor | None) -> str:
    """Why torch is as fast for an elementwise op or a norm of these under a compiler; for `loses`."""
    trained = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    if torch.compiler.is_compiling() and not trained:
        return "torch.compile fuses it as well when no gradient is wanted"
    return ""


def _unable(x: Tensor) -> str:
    """Why no kernel can run on x at all."""
    if not torch.compiler.is_compiling() and _transformed():
        return "kernels know first-order reverse-mode gradients only, and a torch.func transform is at work"
    if interpreted() and x.device.type == "cpu":
        return ""
    if interpreted():
        return f"it is on {x.device.type}, and the interpreter works on the CPU"
    if x.device.type != "cuda":
        return f"it is on {x.device.type}, not on a CUDA device"
    if not HAS_TRITON:
        return "triton is not installed"
    if x.dtype not in KERNEL_DTYPES:
        return f"it is {x.dtype}"
    found = capability(x.device.index or 0)
    return "" if found >= OLDEST else f"the device has compute capability {found[0]}.{found[1]}, below 8.0"


def interpreted() -> bool:
    """Whether Triton interprets its kernels on the CPU (slow; for tests)."""
    return os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")


def _transformed() -> bool:
    """Whether this is inside torch.func's grad, jvp, vmap, ..., or inside forward-mode differentiation."""
    transforms = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
    return transforms.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


@constant
def capability(index: int) -> tuple[int, int]:
    """The compute capability of a CUDA device, (9, 0) for an H100."""
    return torch.cuda.get_device_capability(index)
