"""Repair of Triton's CPU interpreter for bfloat16, for tests only (Triton 3.6 to 3.9).

The interpreter keeps bf16 as uint16. As shipped, `tl.dot`, `+ - * /` and `tl.sum` on bf16 compute on the bit patterns
without a word, a cast from fp32 truncates, and in Triton 3.6 a loop with a run-time bound fails with numpy 2.4.
`install` makes dots, casts and loop bounds right and turns the arithmetic that stays wrong into a TypeError.

It replaces private parts of `triton.runtime.interpreter`, which is why no package may import it.
"""

from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter


def bf16_to_fp32(bits: np.ndarray) -> np.ndarray:
    """uint16 bit patterns to the fp32 values they stand for, exactly."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def fp32_to_bf16(values: np.ndarray) -> np.ndarray:
    """fp32 values to uint16 bit patterns, rounded to nearest even; NaN stays a quiet NaN."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    bits = values.view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = ((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def _is_bf16(handle: Any) -> bool:
    return handle.dtype.scalar == tl.bfloat16


def _widened(handle: Any) -> Any:
    if not _is_bf16(handle):
        return handle
    return interpreter.TensorHandle(bf16_to_fp32(handle.data), tl.float32)


def _refuse(what: str) -> None:
    raise TypeError(f"{what} on bf16 computes on bit patterns in the interpreter: upcast to tl.float32 first")


def install() -> None:
    """Replace the interpreter's methods; a second call does nothing."""
    builder = interpreter.InterpreterBuilder
    if getattr(builder, "repaired_for_bf16", False):
        return
    builder.repaired_for_bf16 = True
    dot, cast, binary = builder.create_dot, builder.cast_impl, builder.binary_op
    fp_to_fp, reduce_sum = builder.create_fp_to_fp, interpreter.ReduceOps.sum
    patch_tensor = interpreter._patch_lang_tensor

    def create_dot(self: Any, a: Any, b: Any, *rest: Any, **named: Any) -> Any:
        return dot(self, _widened(a), _widened(b), *rest, **named)

    def cast_impl(self: Any, source: Any, to: Any) -> Any:
        old, new = source.dtype.scalar, to.scalar
        if old == new:
            return source
        if new == tl.bfloat16:
            return interpreter.TensorHandle(fp32_to_bf16(source.data.astype(np.float32)), tl.bfloat16)
        if old == tl.bfloat16:
            wide = _widened(source)
            return wide if new == tl.float32 else cast(self, wide, to)
        return cast(self, source, to)

    def create_fp_to_fp(self: Any, source: Any, to: Any, rounding: Any) -> Any:
        if {source.dtype.scalar, to.scalar} == {tl.bfloat16, tl.float32}:
            return cast_impl(self, source, to)
        return fp_to_fp(self, source, to, rounding)

    def binary_op(self: Any, left: Any, right: Any, operation: Any) -> Any:
        if _is_bf16(left) or _is_bf16(right):
            _refuse(getattr(operation, "__name__", str(operation)))
        return binary(self, left, right, operation)

    def summed(self: Any, handle: Any) -> Any:
        if _is_bf16(handle):
            _refuse("tl.sum")
        return reduce_sum(self, handle)

    def patch_lang_tensor(tensor: Any, *scope: Any) -> Any:
        patched = patch_tensor(tensor, *scope)
        tensor.__index__ = lambda self: int(np.asarray(self.handle.data).reshape(-1)[0])
        return patched

    builder.create_dot, builder.cast_impl = create_dot, cast_impl
    builder.binary_op, builder.create_fp_to_fp = binary_op, create_fp_to_fp
    interpreter.ReduceOps.sum = summed
    interpreter._patch_lang_tensor = patch_lang_tensor
