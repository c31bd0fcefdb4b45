"""gamma(t) of all sets of a model: one Triton kernel forward, one backward, both registered as ops."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from cf_transformer.kernels import launch
from cf_transformer.kernels.pointers import PointerTables, common_alignment
from cf_transformer.kernels.reference import Leaves
from cf_transformer.kernels.tuned import Tile, tile

PER_SET = 4  # leaves: param0, param1, w, b


def refusal(leaves: Sequence[Leaves], t: Tensor) -> str:
    """Why the kernels cannot take these, in words; empty if they can."""
    every = list(chain.from_iterable(leaves))
    if not every:
        return "there is no set of leaves"
    for one in leaves:
        if len({leaf.shape for leaf in one}) > 1:
            return f"leaves of one set differ in shape: {', '.join(str(tuple(leaf.shape)) for leaf in one)}"
    if len({leaf.dtype for leaf in every}) > 1:
        return f"leaves differ in precision: {', '.join(sorted({str(leaf.dtype) for leaf in every}))}"
    if any(leaf.device != t.device for leaf in every):
        return f"t is on {t.device} and not every leaf is"
    if not all(leaf.is_contiguous() for leaf in every):
        return "a leaf is not contiguous"
    if not t.numel() or not all(leaf.numel() for leaf in every):
        return "there is nothing in t or in a leaf"
    return ""


def time_lerps(leaves: Sequence[Leaves], t: Float[Tensor, "b"]) -> list[Float[Tensor, "_ b 1 _"]]:
    """As `reference.time_lerps`, by the kernels; gradients of first order, to the leaves and t."""
    flat = _TimeLerps.apply(t, *chain.from_iterable(leaves))
    shapes = [one[0].shape for one in leaves]
    pieces = flat.split([m * d for m, d in shapes], dim=1)
    return [
        rearrange(piece, "b (m d) -> m b 1 d", m=m, d=d) for piece, (m, d) in zip(pieces, shapes, strict=True)
    ]


class _TimeLerps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, t: Tensor, *leaves: Tensor) -> Tensor:
        ctx.save_for_backward(t, *leaves)
        return _forward(leaves, t)

    @staticmethod
    @launch.first_order
    def backward(ctx: Any, dflat: Tensor) -> tuple[Tensor | None, ...]:
        t, *leaves = ctx.saved_tensors
        wants_t, *wanted = ctx.needs_input_grad
        dleaves, dt = _backward(dflat, leaves, t, wants_t)
        sizes = [leaf.numel() for leaf in leaves[::PER_SET]]
        pieces = chain.from_iterable(zip(*(row.split(sizes) for row in dleaves.unbind(0)), strict=True))
        grads = (
            piece.view(leaf.shape).to(leaf.dtype) if wants else None
            for piece, leaf, wants in zip(pieces, leaves, wanted, strict=True)
        )
        return dt.to(t.dtype) if wants_t else None, *grads


def _launch_forward(leaves: Sequence[Tensor], t: Tensor) -> Tensor:
    from cf_transformer.kernels.triton import time_lerp as kernels

    out = _fake_forward(leaves, t)
    b, total = out.shape
    work = tile("time_lerps_forward", 1, leaves[0].dtype)
    table, constants = _arguments(work, leaves)
    launch.run(
        kernels.forward, (len(table), launch.row_blocks(b, work.rows)), table, t, out, b, t.stride(0),
        total, **constants,
    )  # fmt: skip
    return out


def _fake_forward(leaves: Sequence[Tensor], t: Tensor) -> Tensor:
    """(b, total): of each sample the m d numbers of the first set, then of the second, and so on."""
    total = sum(leaf.numel() for leaf in leaves[::PER_SET])
    return t.new_empty((t.shape[0], total), dtype=launch.accumulator(leaves[0].dtype))


def _launch_backward(
    dflat: Tensor, leaves: Sequence[Tensor], t: Tensor, wants_t: bool
) -> tuple[Tensor, Tensor]:
    from cf_transformer.kernels.triton import time_lerp as kernels

    b, total = dflat.shape
    dflat = launch.with_adjacent_channels(dflat)
    work = tile("time_lerps_backward", 1, leaves[0].dtype)
    table, constants = _arguments(work, leaves)
    dleaves = dflat.new_empty((PER_SET, total))
    parts = dflat.new_empty((b, len(table))) if wants_t else None
    launch.run(
        kernels.backward, (len(table),), table, t, dflat, dleaves, parts, b, t.stride(0),
        dflat.stride(0), total, **constants,
    )  # fmt: skip
    return dleaves, dflat.new_empty(0) if parts is None else parts.sum(dim=1)


def _fake_backward(
    dflat: Tensor, leaves: Sequence[Tensor], t: Tensor, wants_t: bool
) -> tuple[Tensor, Tensor]:
    """The gradients of all param0, all param1, all w, all b, in the order of `_fake_forward`, and that of t."""
    return dflat.new_empty((PER_SET, dflat.shape[1])), dflat.new_empty(t.shape if wants_t else (0,))


def _rows(addresses: tuple[int, ...], sizes: tuple[int, ...], itemsize: int, columns: int) -> list[list[int]]:
    """A row for every tile: four addresses, its place among all elements, and its length."""
    rows, place = [], 0
    for i, size in enumerate(sizes):
        one = addresses[PER_SET * i : PER_SET * (i + 1)]
        for start in range(0, size, columns):
            tile_addresses = (address + start * itemsize for address in one)
            rows.append([*tile_addresses, place + start, min(columns, size - start)])
        place += size
    return rows


_tables = PointerTables(_rows)


def _arguments(work: Tile, leaves: Sequence[Tensor]) -> tuple[Tensor, dict[str, Any]]:
    """The table, one row for every program of axis 0, and the constants of both kernels."""
    addresses = tuple(leaf.data_ptr() for leaf in leaves)
    sizes = tuple(leaf.numel() for leaf in leaves[::PER_SET])
    dtype = leaves[0].dtype
    constants = {
        "COLUMNS": work.columns,
        "ROWS": work.rows,
        "LEAF": launch.in_triton(dtype),
        "ALIGN": common_alignment(addresses),
        "UNIT": common_alignment(sizes),
        "ACC": launch.in_triton(launch.accumulator(dtype)),
        **work.options(),
    }
    return _tables.on(leaves[0].device, addresses, sizes, dtype.itemsize, work.columns), constants


_forward = launch.register(
    "time_lerps_forward(Tensor[] leaves, Tensor t) -> Tensor", _launch_forward, _fake_forward
)
_backward = launch.register(
    "time_lerps_backward(Tensor dflat, Tensor[] leaves, Tensor t, bool wants_t) -> (Tensor dleaves, Tensor dt)",
    _launch_backward,
    _fake_backward,
)
