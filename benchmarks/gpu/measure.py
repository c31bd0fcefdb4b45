"""One op by several ways: time forward and backward beside its floor, and its error beside its time."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from gpu.floors import Passes, Rates, Work
from gpu.timing import Call, Clock, sets_needed
from torch import Tensor

Way = Callable[..., Tensor | Sequence[Tensor]]
OURS = "kernel"  # the way that is on trial
Row = dict[str, Any]


class LostDevice(RuntimeError):
    """The CUDA context is broken; only a new process can go on."""


@dataclass(frozen=True)
class Bench:
    """Where and how everything is measured. `rates` are None until the card is measured, and in a dry run."""

    clock: Clock
    device: torch.device
    rates: Rates | None = None

    @property
    def cache_bytes(self) -> int:
        """Of the L2 cache; 0 where nothing is timed."""
        return 0 if self.clock.dry else torch.cuda.get_device_properties(self.device).L2_cache_size


@dataclass(frozen=True)
class Op:
    """Something to measure on b samples.

    make     (b) -> one set of inputs; gradients are taken of those that require them
    ways     by name, "kernel" among them: inputs -> one result or several
    exact    the way that errors are taken against, on the same inputs in float64
    checked  how many samples that is done on. Where it is not all, "kernel" is also held against `exact` on all, in the
             inputs' own precision: a kernel that goes wrong in a large batch only does not stay hidden
    """

    b: int
    make: Callable[[int], list[Tensor]]
    ways: dict[str, Way]
    exact: Way
    passes: Passes
    checked: int | None = None


def measure_op(op: Op, bench: Bench) -> Row:
    """Figures and errors by way; a way that cannot is listed under `failed` with its reason."""
    torch.manual_seed(0)  # inputs come from the default generator: the same in every run
    sets = [op.make(op.b)]
    size = sum(x.nbytes for x in sets[0])
    sets += [op.make(op.b) for _ in range(sets_needed(size, bench.cache_bytes) - 1)]
    forward, backward = (floor(work, bench) for work in (op.passes.forward, op.passes.backward))
    row: Row = {
        "inputs": described(sets[0]),
        "passes": {"forward": forward, "backward": backward},
        "errors": {},
        "failed": {},
    }
    checked = sets[0] if op.checked is None else op.make(op.checked)
    exact = results(op.exact, in_float64(checked))
    for name, way in op.ways.items():
        with recorded(row["failed"], name):
            row["errors"][name] = errors(results(way, checked), exact)
            forward[name] = bench.clock.op(_forward(way, sets), len(sets))
            backward[name] = bench.clock.op(_backward(way, sets), len(sets))
    if op.checked is not None:
        with recorded(row["failed"], "all samples"):
            row["all_samples"] = errors(results(op.ways[OURS], sets[0]), results(op.exact, sets[0]))
    return row


def in_float64(inputs: Sequence[Tensor]) -> list[Tensor]:
    """The same numbers; gradients are taken of the same ones."""
    return [x.detach().double().requires_grad_(x.requires_grad) for x in inputs]


def described(inputs: Sequence[Tensor]) -> list[str]:
    """Shapes and precisions, equal neighbours counted."""
    texts = (f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}" for x in inputs)
    return [text if (n := len(list(same))) == 1 else f"{n} x {text}" for text, same in groupby(texts)]


def floor(work: Work, bench: Bench) -> Row:
    """What a pass must move and compute, and how long that takes here."""
    row: Row = {"bytes": work.bytes, "matmul": work.matmul, "fp32": work.fp32}
    if bench.rates is not None:
        row |= {"floor_us": 1e6 * work.seconds(bench.rates), "bound_by": work.bound_by(bench.rates)}
    return row


@contextmanager
def recorded(failed: dict[str, str], name: str) -> Iterator[None]:
    """Put down why something failed and go on; LostDevice where nothing can go on."""
    try:
        yield
    except Exception as error:
        failed[name] = reason(error)
        check_device(failed[name])
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def reason(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]


def check_device(why: str) -> None:
    """Raise LostDevice, with what came before, if the CUDA context is broken."""
    if not torch.cuda.is_available():
        return
    try:
        torch.cuda.synchronize()
    except Exception as lost:
        raise LostDevice(why) from lost


@dataclass(frozen=True)
class Results:
    """Of one call: what came out, and the gradients of a fixed combination of it."""

    outputs: tuple[Tensor, ...]
    gradients: tuple[Tensor, ...]


def outputs_of(way: Way, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Always a tuple."""
    out = way(*inputs)
    return (out,) if isinstance(out, Tensor) else tuple(out)


def directions(outputs: Sequence[Tensor]) -> list[Tensor]:
    """A gradient for every output: the same numbers for the same shapes, in each output's precision."""
    generator = torch.Generator(outputs[0].device).manual_seed(1)
    # drawn in bf16, so that every precision sees the same values
    return [
        torch.randn(y.shape, generator=generator, device=y.device, dtype=torch.bfloat16).to(y.dtype)
        for y in outputs
    ]


def results(way: Way, inputs: Sequence[Tensor]) -> Results:
    """One forward and one backward."""
    outputs = outputs_of(way, inputs)
    leaves = [x for x in inputs if x.requires_grad]
    gradients = torch.autograd.grad(outputs, leaves, directions(outputs))
    return Results(tuple(y.detach() for y in outputs), gradients)


def relative_error(value: Tensor, exact: Tensor) -> float:
    """|value - exact| / |exact| over all numbers."""
    exact = exact.to(torch.promote_types(exact.dtype, torch.float32))
    size = torch.linalg.vector_norm(exact)
    return (torch.linalg.vector_norm(value.to(exact.dtype) - exact) / size).item()


def errors(found: Results, exact: Results) -> dict[str, float]:
    """The worst relative error among the outputs, and among the gradients; ArithmeticError where one is no number."""
    worst = {
        part: max(relative_error(a, b) for a, b in zip(mine, theirs, strict=True))
        for part, mine, theirs in (
            ("forward", found.outputs, exact.outputs),
            ("backward", found.gradients, exact.gradients),
        )
    }
    if not all(map(math.isfinite, worst.values())):
        raise ArithmeticError(f"not a number in the result: relative errors {worst}")
    return worst


def _forward(way: Way, sets: list[list[Tensor]]) -> Callable[[int], Call]:
    return lambda i: lambda: way(*sets[i])


def _backward(way: Way, sets: list[list[Tensor]]) -> Callable[[int], Call]:
    given = [directions(outputs_of(way, inputs)) for inputs in sets]

    def prepare(i: int) -> Call:
        outputs = outputs_of(way, sets[i])
        leaves = [x for x in sets[i] if x.requires_grad]
        return lambda: torch.autograd.grad(outputs, leaves, given[i])

    return prepare
