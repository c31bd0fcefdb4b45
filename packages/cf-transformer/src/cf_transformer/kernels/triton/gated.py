# type: ignore  (Triton's language only looks like Python, and its types are the compiler's)
# ruff: noqa: ANN001, ANN201
"""GEGLU, gelu(a) v of the halves [a | v] of the last axis, forward and backward; gelu is the exact one, with erf.

A program owns ROWS x COLUMNS of one sample's (n, f) results. AB (b, n, 2 f) and DY (b, n, f) are read by their strides
over samples and tokens, what the kernels allocate is contiguous. ACC is the precision of all arithmetic.
"""

import triton
import triton.language as tl


@triton.jit
def _tile(n, f, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Sample, tokens (a column), channels (a row) of this program, and which of them exist."""
    blocks = tl.cdiv(n, ROWS)
    b = (tl.program_id(0) // blocks).to(tl.int64)
    row = ((tl.program_id(0) % blocks) * ROWS + tl.arange(0, ROWS))[:, None]
    column = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    return b, row, column, (row < n) & (column < f)


@triton.jit
def _normal_cdf(a):
    return 0.5 * (1.0 + tl.erf(a * 0.7071067811865476))


@triton.jit
def forward(AB, Y, n, f, ab_b, ab_n, ROWS: tl.constexpr, COLUMNS: tl.constexpr, ACC: tl.constexpr):
    """Y = a cdf(a) v."""
    b, row, column, inside = _tile(n, f, ROWS, COLUMNS)
    ab = AB + b * ab_b + row * ab_n + column
    a = tl.load(ab, mask=inside, other=0.0).to(ACC)
    v = tl.load(ab + f, mask=inside, other=0.0).to(ACC)
    y = a * _normal_cdf(a) * v
    tl.store(Y + b * n * f + row * f + column, y.to(Y.dtype.element_ty), mask=inside)


@triton.jit
def backward(
    AB, DY, DAB, n, f, ab_b, ab_n, dy_b, dy_n, ROWS: tl.constexpr, COLUMNS: tl.constexpr, ACC: tl.constexpr
):
    """d/da = dy v (cdf(a) + a pdf(a)),   d/dv = dy a cdf(a)."""
    b, row, column, inside = _tile(n, f, ROWS, COLUMNS)
    ab = AB + b * ab_b + row * ab_n + column
    a = tl.load(ab, mask=inside, other=0.0).to(ACC)
    v = tl.load(ab + f, mask=inside, other=0.0).to(ACC)
    dy = tl.load(DY + b * dy_b + row * dy_n + column, mask=inside, other=0.0).to(ACC)
    cdf = _normal_cdf(a)
    pdf = 0.3989422804014327 * tl.exp(-0.5 * a * a)
    dab = DAB + b * n * 2 * f + row * 2 * f + column
    tl.store(dab, (dy * v * (cdf + a * pdf)).to(DAB.dtype.element_ty), mask=inside)
    tl.store(dab + f, (dy * a * cdf).to(DAB.dtype.element_ty), mask=inside)
