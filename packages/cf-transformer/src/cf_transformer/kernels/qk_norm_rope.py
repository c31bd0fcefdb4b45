"""RMS norm and rotation of the heads of q and k in packed qkv: plain torch, or one Triton kernel each way."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cf_transformer.kernels import launch
from cf_transformer.kernels.dispatch import by_triton, not_worth_it
from cf_transformer.kernels.packed_qkv import refusal, sizes
from cf_transformer.kernels.reference_attention import QK_NORM_EPS, reference_qk_norm_rope
from cf_transformer.kernels.tuned import Tile, tile


def qk_norm_rope(
    qkv: Float[Tensor, "b n 3 k e"],
    cos: Float[Tensor, "n half"],
    sin: Float[Tensor, "n half"],
    gain: Float[Tensor, "2 k"],
) -> Float[Tensor, "b n 3 k e"]:
    """q and k divided by their root mean square, times the gain of their head and turned; v as it is.

        x -> R(n) gain x / sqrt(mean(x^2) + 1e-6)

    R(n) turns the pair (x[j], x[j + e/2]) of token n by the angle with cosine cos[n, j] and sine sin[n, j], so a token
    without a position has 1 and 0 there. The kernels recover the normalised head from their result: they ask for
    cos^2 + sin^2 > 0, and give a gain that is exactly 0 no gradient.
    """
    _check(qkv, cos, sin, gain)
    why = not_worth_it(qkv.numel(), qkv, cos, sin, gain)
    triton = by_triton("qk_norm_rope", qkv, refusal=_refusal(qkv, cos, sin, gain), loses=why)
    return (triton_qk_norm_rope if triton else reference_qk_norm_rope)(qkv, cos, sin, gain)


def _check(qkv: Tensor, cos: Tensor, sin: Tensor, gain: Tensor) -> None:
    _, n, _, k, e = qkv.shape
    if e % 2:
        raise ValueError(f"a head of {e} channels has no pairs to turn; its width must be even")
    for name, table in {"cos": cos, "sin": sin}.items():
        if table.shape != (n, e // 2):
            raise ValueError(
                f"{name} has shape {tuple(table.shape)}, {n} tokens and {e // 2} pairs ask for {(n, e // 2)}"
            )
    if gain.shape != (2, k):
        raise ValueError(f"gain has shape {tuple(gain.shape)}, q and k with {k} heads ask for {(2, k)}")


def _refusal(qkv: Tensor, cos: Tensor, sin: Tensor, gain: Tensor) -> str:
    """Why the kernels cannot take these, in words; empty if they can."""
    for name, x in {"cos": cos, "sin": sin, "gain": gain}.items():
        if x.device != qkv.device:
            return f"{name} is on {x.device}, and qkv on {qkv.device}"
    return refusal(qkv, "qk_norm_rope_forward")


def triton_qk_norm_rope(
    qkv: Float[Tensor, "b n 3 k e"],
    cos: Float[Tensor, "n half"],
    sin: Float[Tensor, "n half"],
    gain: Float[Tensor, "2 k"],
) -> Float[Tensor, "b n 3 k e"]:
    """As `reference_qk_norm_rope`, by the kernels; gradients of first order, to all four."""
    return _QKNormRope.apply(qkv, cos, sin, gain)


class _QKNormRope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor, gain: Tensor) -> Tensor:
        out, rstd = _forward(qkv, cos, sin, gain)
        ctx.save_for_backward(out, cos, sin, gain, rstd)
        return out

    @staticmethod
    @launch.first_order
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        out, cos, sin, gain, rstd = ctx.saved_tensors
        wants_table = any(ctx.needs_input_grad[1:3])
        dqkv, dcos, dsin, dgain = _backward(dout, out, cos, sin, gain, rstd, wants_table)
        if not wants_table:
            return dqkv, None, None, dgain.to(gain.dtype)
        return dqkv, dcos.to(cos.dtype), dsin.to(sin.dtype), dgain.to(gain.dtype)


def _launch_forward(qkv: Tensor, cos: Tensor, sin: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    from cf_transformer.kernels.triton import qk_norm_rope as kernels

    out, rstd = _fake_forward(qkv, cos, sin, gain)
    constants = _constants(qkv, tile("qk_norm_rope_forward", qkv.shape[-1], qkv.dtype))
    tables = (table.contiguous() for table in (cos, sin, gain))
    programs = _programs(qkv, constants)
    launch.run(kernels.forward, programs, qkv, *tables, out, rstd, *sizes(qkv), EPS=QK_NORM_EPS, **constants)
    return out, rstd


def _fake_forward(qkv: Tensor, cos: Tensor, sin: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """The result, and 1 / sqrt(mean(x^2) + eps) of each head of q and k of each token."""
    b, n, _, k, _ = qkv.shape
    return qkv.new_empty(qkv.shape), qkv.new_empty((b, 2, k, n), dtype=launch.accumulator(qkv.dtype))


def _launch_backward(
    dout: Tensor, out: Tensor, cos: Tensor, sin: Tensor, gain: Tensor, rstd: Tensor, wants_table: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from cf_transformer.kernels.triton import qk_norm_rope as kernels

    b, n, _, k, e = out.shape
    dout, out = launch.with_adjacent_channels(dout), out.contiguous()
    constants = _constants(dout, tile("qk_norm_rope_backward", e, out.dtype))
    tiles, groups = programs = _programs(out, constants)
    dqkv, dgain = out.new_empty(out.shape), rstd.new_empty((tiles, 2, k))
    dtables = [rstd.new_empty((b, 2 * groups // 3, n, e // 2)) if wants_table else None for _ in range(2)]
    tables = (table.contiguous() for table in (cos, sin, gain))
    launch.run(
        kernels.backward, programs, dout, out, *tables, rstd, dqkv, dgain, *dtables, *sizes(dout),
        **constants,
    )  # fmt: skip
    dcos, dsin = (rstd.new_empty(0) if part is None else part.sum(dim=(0, 1)) for part in dtables)
    return dqkv, dcos, dsin, dgain.sum(dim=0)


def _fake_backward(
    dout: Tensor, out: Tensor, cos: Tensor, sin: Tensor, gain: Tensor, rstd: Tensor, wants_table: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dcos, dsin = (rstd.new_empty(table.shape if wants_table else (0,)) for table in (cos, sin))
    return out.new_empty(out.shape), dcos, dsin, rstd.new_empty(gain.shape)


def _constants(qkv: Tensor, work: Tile) -> dict[str, Any]:
    """What a kernel is compiled for. A program takes as many heads as leave enough programs to fill a GPU."""
    b, n, _, k, e = qkv.shape
    half, tiles = e // 2, b * launch.row_blocks(n, work.rows)
    turns = [turn for turn in range(1, k + 1) if k % turn == 0 and 3 * k // turn * tiles >= launch.PROGRAMS]
    return {
        "S_H": qkv.stride(3),
        "HALF": half,
        "PAIRS": 1 << (half - 1).bit_length(),
        "ROWS": work.rows,
        "TURN": max(turns, default=1),
        "ACC": launch.in_triton(launch.accumulator(qkv.dtype)),
        **work.options(),
    }


def _programs(qkv: Tensor, constants: dict[str, Any]) -> tuple[int, int]:
    """One for each tile of tokens of each sample, times one for each group of heads of q, of k and of v."""
    b, n, _, k, _ = qkv.shape
    return b * launch.row_blocks(n, constants["ROWS"]), 3 * k // constants["TURN"]


_forward = launch.register(
    "qk_norm_rope_forward(Tensor qkv, Tensor cos, Tensor sin, Tensor gain) -> (Tensor out, Tensor rstd)",
    _launch_forward,
    _fake_forward,
)
_backward = launch.register(
    "qk_norm_rope_backward(Tensor dout, Tensor out, Tensor cos, Tensor sin, Tensor gain, Tensor rstd, bool wants_table)"
    " -> (Tensor dqkv, Tensor dcos, Tensor dsin, Tensor dgain)",
    _launch_backward,
    _fake_backward,
)
