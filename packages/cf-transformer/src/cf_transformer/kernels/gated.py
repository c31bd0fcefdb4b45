"""GEGLU: one Triton kernel forward, one backward that recomputes, both registered as ops."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cf_transformer.kernels import launch
from cf_transformer.kernels.tuned import Tile, tile


def refusal(ab: Tensor) -> str:
    """Why the kernels cannot take it, in words; empty if they can."""
    if ab.shape[-1] % 2:
        return f"{ab.shape[-1]} channels cannot be halved"
    if not ab.numel():
        return f"there is nothing in a shape of {tuple(ab.shape)}"
    return launch.not_adjacent(ab=_tokens(ab))


def geglu(ab: Float[Tensor, "*b twice_f"]) -> Float[Tensor, "*b f"]:
    """As `reference.geglu`, by the kernels; a gradient of first order."""
    return _GEGLU.apply(_tokens(ab)).view(*ab.shape[:-1], -1)


def _tokens(ab: Tensor) -> Tensor:
    """Seen as (b, n, 2 f)."""
    while ab.ndim < 3:
        ab = ab[None]
    return ab.flatten(0, -3)


class _GEGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ab: Tensor) -> Tensor:
        ctx.save_for_backward(ab)
        return _forward(ab)

    @staticmethod
    @launch.first_order
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        return _backward(dy, *ctx.saved_tensors)


def _launch_forward(ab: Tensor) -> Tensor:
    from cf_transformer.kernels.triton import gated as kernels

    y = _fake_forward(ab)
    _, n, f = y.shape
    work = tile("geglu_forward", f, ab.dtype)
    launch.run(kernels.forward, _grid(y, work), ab, y, n, f, *launch.steps(ab), **_constants(work, ab.dtype))
    return y


def _fake_forward(ab: Tensor) -> Tensor:
    b, n, twice_f = ab.shape
    return ab.new_empty((b, n, twice_f // 2))


def _launch_backward(dy: Tensor, ab: Tensor) -> Tensor:
    from cf_transformer.kernels.triton import gated as kernels

    dab, dy = _fake_backward(dy, ab), launch.with_adjacent_channels(dy)
    _, n, f = dy.shape
    work = tile("geglu_backward", f, ab.dtype)
    launch.run(
        kernels.backward, _grid(dy, work), ab, dy, dab, n, f, *launch.steps(ab), *launch.steps(dy),
        **_constants(work, ab.dtype),
    )  # fmt: skip
    return dab


def _fake_backward(dy: Tensor, ab: Tensor) -> Tensor:
    return ab.new_empty(ab.shape)


def _grid(y: Tensor, work: Tile) -> tuple[int, int]:
    b, n, f = y.shape
    return b * launch.row_blocks(n, work.rows), launch.row_blocks(f, work.columns)


def _constants(work: Tile, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "ROWS": work.rows,
        "COLUMNS": work.columns,
        "ACC": launch.in_triton(launch.accumulator(dtype)),
        **work.options(),
    }


_forward = launch.register("geglu_forward(Tensor ab) -> Tensor", _launch_forward, _fake_forward)
_backward = launch.register(
    "geglu_backward(Tensor dy, Tensor ab) -> Tensor", _launch_backward, _fake_backward
)
