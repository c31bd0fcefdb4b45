"""Attention on packed qkv: SDPA, or Triton kernels that copy nothing, one forward and two deterministic ones back."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cf_transformer.kernels import dispatch, launch
from cf_transformer.kernels.dispatch import by_triton, constant
from cf_transformer.kernels.packed_qkv import refusal, sizes
from cf_transformer.kernels.reference_attention import reference_attention
from cf_transformer.kernels.tuned import Tile, tile

NARROWEST = 16  # operand of tl.dot; narrower heads are padded to it


def attention(qkv: Float[Tensor, "b n 3 k e"]) -> Float[Tensor, "b n k e"]:
    """softmax(q k^T / sqrt(e)) v over the n tokens of k heads of width e, in qkv's precision even under autocast."""
    triton = by_triton("attention", qkv, refusal=refusal(qkv, "attention_forward"), loses=loses(qkv))
    return triton_attention(qkv) if triton else reference_attention(qkv)


def loses(qkv: Tensor) -> str:
    """Why SDPA is taken where the kernels could run: they are for the case in which a tile would hold one key."""
    n, e = qkv.shape[1], qkv.shape[-1]
    if e != 64 or n % 64 != 1:
        return "the kernels are for heads of width 64 and 1 + 64 m tokens"
    if not _timed(e, qkv.dtype):
        return "the kernels were never timed on a GPU"
    if dispatch.capability(qkv.device.index or 0) != (9, 0):
        return "the kernels were timed on sm_90 only"
    return ""


@constant  # a compiler calls it, but does not look into the table of tiles
def _timed(e: int, dtype: torch.dtype) -> bool:
    return tile("attention_forward", e, dtype).measured


def triton_attention(qkv: Float[Tensor, "b n 3 k e"]) -> Float[Tensor, "b n k e"]:
    """As `reference_attention`, by the kernels; gradients of first order, the same bits in every run."""
    return _Attention.apply(qkv)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor) -> Tensor:
        out, lse = _forward(qkv)
        ctx.save_for_backward(qkv, out, lse)
        return out

    @staticmethod
    @launch.first_order
    def backward(ctx: Any, dout: Tensor) -> Tensor:
        return _backward(dout, *ctx.saved_tensors)


def _launch_forward(qkv: Tensor) -> tuple[Tensor, Tensor]:
    from cf_transformer.kernels.triton import attention as kernels

    out, lse = _fake_forward(qkv)
    work = tile("attention_forward", qkv.shape[-1], qkv.dtype)
    constants = _constants(qkv, work, work.columns)
    programs = _programs(qkv, work.rows, constants)
    launch.run(kernels.forward, programs, qkv, out, lse, *sizes(qkv), **constants)
    return out, lse


def _fake_forward(qkv: Tensor) -> tuple[Tensor, Tensor]:
    """The result, and log2 of the sum of exponentials of each query of each head."""
    b, n, _, k, e = qkv.shape
    return qkv.new_empty((b, n, k, e)), qkv.new_empty((b, k, n), dtype=launch.accumulator(qkv.dtype))


def _launch_backward(dout: Tensor, qkv: Tensor, out: Tensor, lse: Tensor) -> Tensor:
    from cf_transformer.kernels.triton import attention as kernels

    dout, out = dout.contiguous(), out.contiguous()
    dqkv, delta = qkv.new_empty(qkv.shape), lse.new_empty(lse.shape)
    work = tile("attention_backward_q", qkv.shape[-1], qkv.dtype)
    constants = _constants(qkv, work, work.columns)
    programs = _programs(qkv, work.rows, constants)
    launch.run(kernels.backward_q, programs, qkv, out, dout, lse, delta, dqkv, *sizes(qkv), **constants)
    work = tile("attention_backward_kv", qkv.shape[-1], qkv.dtype)
    constants = _constants(qkv, work, work.rows)
    programs = _programs(qkv, work.columns, constants)
    launch.run(kernels.backward_kv, programs, qkv, dout, lse, delta, dqkv, *sizes(qkv), **constants)
    return dqkv


def _fake_backward(dout: Tensor, qkv: Tensor, out: Tensor, lse: Tensor) -> Tensor:
    return qkv.new_empty(qkv.shape)


def _constants(qkv: Tensor, work: Tile, step: int) -> dict[str, Any]:
    """What a kernel is compiled for. Its loop takes `step` tokens at a time, without token 0 if the others fit then."""
    n, e = qkv.shape[1], qkv.shape[-1]
    apart = int((n - 1) % step == 0)
    return {
        "S_H": qkv.stride(3),
        "E": e,
        "EP": max(NARROWEST, 1 << (e - 1).bit_length()),
        "ROWS": work.rows,
        "COLUMNS": work.columns,
        "APART": apart,
        "EVEN": (n - apart) % step == 0,
        "SCALE": e**-0.5,
        "ACC": launch.in_triton(launch.accumulator(qkv.dtype)),
        **work.options(),
    }


def _programs(qkv: Tensor, size: int, constants: dict[str, Any]) -> tuple[int]:
    """One for each tile of `size` tokens of each head of each sample, and one for token 0 where it stands apart."""
    b, n, _, k, _ = qkv.shape
    apart = constants["APART"]
    return (b * k * (launch.row_blocks(n - apart, size) + apart),)


_forward = launch.register(
    "attention_forward(Tensor qkv) -> (Tensor out, Tensor lse)", _launch_forward, _fake_forward
)
_backward = launch.register(
    "attention_backward(Tensor dout, Tensor qkv, Tensor out, Tensor lse) -> Tensor dqkv",
    _launch_backward,
    _fake_backward,
)
