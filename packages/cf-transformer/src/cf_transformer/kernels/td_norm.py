"""Residual add and time-dependent norm: one Triton kernel forward, one backward, both registered as ops."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cf_transformer.kernels import launch
from cf_transformer.kernels.reference import LAYER_NORM_EPS, RMS_EPS, Norm, known_norm
from cf_transformer.kernels.tuned import Tile, tile, widest

EPS = {"rms": RMS_EPS, "layer": LAYER_NORM_EPS}


def refusal(x: Tensor, r: Tensor | None, gamma: Tensor, beta: Tensor | None) -> str:
    """Why the kernels cannot take these, in words; empty if they can."""
    b, _, d = x.shape
    for name, vector in {"gamma": gamma, "beta": beta}.items():
        if vector is not None and vector.shape not in ((b, 1, d), (1, 1, d)):
            return f"{name} has shape {tuple(vector.shape)}, not ({b} or 1, 1, {d})"
    if r is not None and r.shape != x.shape:
        return f"r has shape {tuple(r.shape)}, and x {tuple(x.shape)}"
    if not x.numel():
        return f"there is nothing in a shape of {tuple(x.shape)}"
    if d > widest("td_norm_forward", x.dtype):
        return f"{d} channels do not fit one program, {widest('td_norm_forward', x.dtype)} are the most"
    return launch.not_adjacent(x=x, r=r, gamma=gamma, beta=beta)


def add_td_norm(
    x: Float[Tensor, "b n d"],
    r: Float[Tensor, "b n d"] | None,
    gamma: Float[Tensor, "#b 1 d"],
    beta: Float[Tensor, "#b 1 d"] | None,
    *,
    norm: Norm,
) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b n d"]]:
    """As `reference.add_td_norm`, by the kernels; gradients of first order, to all four and from both results."""
    y, s = _AddTDNorm.apply(x, r, gamma, beta, known_norm(norm))
    return y, x if r is None else s


class _AddTDNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, r: Tensor | None, gamma: Tensor, beta: Tensor | None, norm: Norm
    ) -> tuple[Tensor, Tensor]:
        y, s, centre, spread = _forward(x, r, gamma, beta, norm)
        ctx.save_for_backward(x if r is None else s, gamma, beta, centre, spread)
        ctx.norm, ctx.r_dtype = norm, None if r is None else r.dtype
        ctx.set_materialize_grads(False)
        return y, s

    @staticmethod
    @launch.first_order
    def backward(ctx: Any, dy: Tensor | None, ds: Tensor | None) -> tuple[Tensor | None, ...]:
        s, gamma, beta, centre, spread = ctx.saved_tensors
        wants_gamma, wants_beta = ctx.needs_input_grad[2:4]
        if ctx.r_dtype is None:  # s was x itself, which autograd sees to
            ds = None
        if dy is None:
            return ds, None if ds is None else ds.to(ctx.r_dtype), None, None, None
        dx, dgamma, dbeta = _backward(dy, ds, s, gamma, centre, spread, wants_gamma, wants_beta, ctx.norm)
        return (
            dx,
            None if ctx.r_dtype is None else dx.to(ctx.r_dtype),
            launch.summed_like(dgamma, gamma) if wants_gamma else None,
            launch.summed_like(dbeta, beta) if wants_beta else None,
            None,
        )


def _launch_forward(
    x: Tensor, r: Tensor | None, gamma: Tensor, beta: Tensor | None, norm: Norm
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from cf_transformer.kernels.triton import td_norm as kernels

    b, n, d = x.shape
    y, s, centre, spread = _fake_forward(x, r, gamma, beta, norm)
    work = tile("td_norm_forward", d, x.dtype)
    launch.run(
        kernels.forward, (b * launch.row_blocks(n, work.rows),),
        x, r, gamma, beta, y, s, centre, spread, n, *launch.steps(x), *launch.steps(r),
        launch.steps(gamma)[0], launch.steps(beta)[0], **_constants(work, d, norm, x.dtype),
    )  # fmt: skip
    return y, s, centre, spread


def _fake_forward(
    x: Tensor, r: Tensor | None, gamma: Tensor, beta: Tensor | None, norm: Norm
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, s (nothing without r), and of each token its mean (nothing for rms) and its root."""
    b, n, d = x.shape
    dtype = launch.accumulator(x.dtype)
    s = x.new_empty((0,) if r is None else (b, n, d))
    centre = x.new_empty((b, n) if norm == "layer" else (0,), dtype=dtype)
    return x.new_empty((b, n, d)), s, centre, x.new_empty((b, n), dtype=dtype)


def _launch_backward(
    dy: Tensor, ds: Tensor | None, s: Tensor, gamma: Tensor, centre: Tensor, spread: Tensor,
    wants_gamma: bool, wants_beta: bool, norm: Norm,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    from cf_transformer.kernels.triton import td_norm as kernels

    b, n, d = s.shape
    work = tile("td_norm_backward", d, s.dtype)
    chunk = launch.rows_per_chunk(n, work.rows, b)
    chunks = launch.row_blocks(n, chunk)
    dy = launch.with_adjacent_channels(dy)
    ds = None if ds is None else launch.with_adjacent_channels(ds)
    dx = s.new_empty((b, n, d))
    parts = [spread.new_empty((b, chunks, d)) if wanted else None for wanted in (wants_gamma, wants_beta)]
    launch.run(
        kernels.backward, (b * chunks,),
        dy, ds, s, gamma, centre, spread, dx, *parts, n, chunk,
        *launch.steps(dy), *launch.steps(ds), *launch.steps(s), launch.steps(gamma)[0],
        **_constants(work, d, norm, s.dtype),
    )  # fmt: skip
    dgamma, dbeta = (spread.new_empty(0) if part is None else part.sum(dim=1, keepdim=True) for part in parts)
    return dx, dgamma, dbeta


def _fake_backward(
    dy: Tensor, ds: Tensor | None, s: Tensor, gamma: Tensor, centre: Tensor, spread: Tensor,
    wants_gamma: bool, wants_beta: bool, norm: Norm,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    b, _, d = s.shape
    dgamma, dbeta = (spread.new_empty((b, 1, d) if wanted else (0,)) for wanted in (wants_gamma, wants_beta))
    return s.new_empty(s.shape), dgamma, dbeta


def _constants(work: Tile, d: int, norm: Norm, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "D": d,
        "COLUMNS": work.columns,
        "ROWS": work.rows,
        "LAYER": norm == "layer",
        "EPS": EPS[norm],
        "ACC": launch.in_triton(launch.accumulator(dtype)),
        **work.options(),
    }


_forward = launch.register(
    "add_td_norm_forward(Tensor x, Tensor? r, Tensor gamma, Tensor? beta, str norm)"
    " -> (Tensor y, Tensor s, Tensor centre, Tensor spread)",
    _launch_forward,
    _fake_forward,
)
_backward = launch.register(
    "add_td_norm_backward(Tensor dy, Tensor? ds, Tensor s, Tensor gamma, Tensor centre, Tensor spread,"
    " bool wants_gamma, bool wants_beta, str norm) -> (Tensor dx, Tensor dgamma, Tensor dbeta)",
    _launch_backward,
    _fake_backward,
)
