"""Layer norm over concatenated maps: two Triton kernels forward, two backward, registered as two ops."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cf_transformer.kernels import launch
from cf_transformer.kernels.pointers import PointerTables, common_alignment
from cf_transformer.kernels.reference import LAYER_NORM_EPS
from cf_transformer.kernels.tuned import Tile, tile, widest


def refusal(maps: Sequence[Tensor], gamma: Tensor, beta: Tensor) -> str:
    """Why the kernels cannot take these, in words; empty if they can."""
    b, n, d = maps[0].shape
    width = len(maps) * d
    if any(x.shape != maps[0].shape for x in maps):
        return f"maps differ in shape: {', '.join(str(tuple(x.shape)) for x in maps)}"
    if any((x.dtype, x.device) != (maps[0].dtype, maps[0].device) for x in maps):
        return "maps differ in precision or device"
    for name, vector in {"gamma": gamma, "beta": beta}.items():
        if vector.shape not in ((b, 1, width), (1, 1, width)):
            return f"{name} has shape {tuple(vector.shape)}, not ({b} or 1, 1, {width})"
    if not maps[0].numel():
        return f"there is nothing in maps of shape {(b, n, d)}"
    if n * width > launch.OFFSETS:
        return f"{n} tokens of {width} channels are more than 2**31 elements in one sample"
    if d > widest("concat_norm_forward", maps[0].dtype):
        return f"{d} channels do not fit one program, {widest('concat_norm_forward', maps[0].dtype)} are the most"
    named = {f"map {i}": x for i, x in enumerate(maps)}
    return launch.not_adjacent(gamma=gamma, beta=beta, **named)


def concat_td_norm(
    maps: Sequence[Float[Tensor, "b n d"]], gamma: Float[Tensor, "#b 1 sd"], beta: Float[Tensor, "#b 1 sd"]
) -> Float[Tensor, "b n sd"]:
    """As `reference.concat_td_norm`, by the kernels; gradients of first order, to every map, gamma and beta."""
    return _ConcatTDNorm.apply(gamma, beta, *maps)


class _ConcatTDNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gamma: Tensor, beta: Tensor, *maps: Tensor) -> Tensor:
        y, centre, spread = _forward(maps, gamma, beta)
        ctx.save_for_backward(gamma, beta, centre, spread, *maps)
        return y

    @staticmethod
    @launch.first_order
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        gamma, beta, centre, spread, *maps = ctx.saved_tensors
        wants_gamma, wants_beta = ctx.needs_input_grad[:2]
        dmaps, dgamma, dbeta = _backward(dy, maps, gamma, centre, spread, wants_gamma, wants_beta)
        return (
            launch.summed_like(dgamma, gamma) if wants_gamma else None,
            launch.summed_like(dbeta, beta) if wants_beta else None,
            *dmaps.unbind(0),
        )


def _launch_forward(maps: Sequence[Tensor], gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    from cf_transformer.kernels.triton import concat_norm as kernels

    y, centre, spread = _fake_forward(maps, gamma, beta)
    b, n, d = maps[0].shape
    first, second = (tile(f"concat_norm_{which}", d, y.dtype) for which in ("moments", "forward"))
    table, constants = _arguments(maps)
    launch.run(
        kernels.moments, (b * launch.row_blocks(n, first.rows),), table, centre, spread, n, len(maps),
        EPS=LAYER_NORM_EPS, **_tiling(first), **constants,
    )  # fmt: skip
    launch.run(
        kernels.forward, (b * launch.row_blocks(n, second.rows), len(maps)),
        table, gamma, beta, centre, spread, y, n, launch.steps(gamma)[0], launch.steps(beta)[0],
        **_tiling(second), **constants,
    )  # fmt: skip
    return y, centre, spread


def _fake_forward(maps: Sequence[Tensor], gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """y, and of each token its mean and root."""
    b, n, d = maps[0].shape
    centre, spread = (maps[0].new_empty((b, n), dtype=launch.accumulator(maps[0].dtype)) for _ in range(2))
    return maps[0].new_empty((b, n, len(maps) * d)), centre, spread


def _launch_backward(
    dy: Tensor, maps: Sequence[Tensor], gamma: Tensor, centre: Tensor, spread: Tensor,
    wants_gamma: bool, wants_beta: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    from cf_transformer.kernels.triton import concat_norm as kernels

    b, n, d = maps[0].shape
    dy = launch.with_adjacent_channels(dy)
    first, second = (tile(f"concat_norm_{which}", d, dy.dtype) for which in ("means", "backward"))
    chunk = launch.rows_per_chunk(n, second.rows, b * len(maps))
    chunks = launch.row_blocks(n, chunk)
    means = spread.new_empty((2, b, n))
    dmaps = maps[0].new_empty((len(maps), b, n, d))
    parts = [
        spread.new_empty((b, chunks, len(maps) * d)) if wanted else None
        for wanted in (wants_gamma, wants_beta)
    ]
    table, constants = _arguments(maps)
    launch.run(
        kernels.means, (b * launch.row_blocks(n, first.rows),),
        table, dy, gamma, centre, spread, means, n, len(maps), *launch.steps(dy), launch.steps(gamma)[0],
        **_tiling(first), **constants,
    )  # fmt: skip
    launch.run(
        kernels.backward, (b * chunks, len(maps)),
        table, dy, gamma, centre, spread, means, dmaps, *parts, n, chunk, *launch.steps(dy),
        launch.steps(gamma)[0], **_tiling(second), **constants,
    )  # fmt: skip
    dgamma, dbeta = (spread.new_empty(0) if part is None else part.sum(dim=1, keepdim=True) for part in parts)
    return dmaps, dgamma, dbeta


def _fake_backward(
    dy: Tensor, maps: Sequence[Tensor], gamma: Tensor, centre: Tensor, spread: Tensor,
    wants_gamma: bool, wants_beta: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    b, _, width = dy.shape
    dgamma, dbeta = (
        spread.new_empty((b, 1, width) if wanted else (0,)) for wanted in (wants_gamma, wants_beta)
    )
    return maps[0].new_empty((len(maps), *maps[0].shape)), dgamma, dbeta


_tables = PointerTables(lambda *maps: [list(numbers) for numbers in maps])


def _arguments(maps: Sequence[Tensor]) -> tuple[Tensor, dict[str, Any]]:
    """The table, (address, stride over samples, stride over tokens) of every map, and what all kernels know."""
    rows = [(x.data_ptr(), *launch.steps(x)) for x in maps]
    dtype, d = maps[0].dtype, maps[0].shape[-1]
    constants = {
        "D": d,
        "MAP": launch.in_triton(dtype),
        "ALIGN": common_alignment(address for address, *_ in rows),
        "UNIT": common_alignment(step for _, *strides in rows for step in strides),
        "ACC": launch.in_triton(launch.accumulator(dtype)),
    }
    return _tables.on(maps[0].device, *rows), constants


def _tiling(work: Tile) -> dict[str, Any]:
    return {"ROWS": work.rows, "COLUMNS": work.columns, **work.options()}


_forward = launch.register(
    "concat_td_norm_forward(Tensor[] maps, Tensor gamma, Tensor beta) -> (Tensor y, Tensor centre, Tensor spread)",
    _launch_forward,
    _fake_forward,
)
_backward = launch.register(
    "concat_td_norm_backward(Tensor dy, Tensor[] maps, Tensor gamma, Tensor centre, Tensor spread,"
    " bool wants_gamma, bool wants_beta) -> (Tensor dmaps, Tensor dgamma, Tensor dbeta)",
    _launch_backward,
    _fake_backward,
)
