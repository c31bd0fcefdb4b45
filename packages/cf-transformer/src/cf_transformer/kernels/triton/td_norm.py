# type: ignore  (Triton's language only looks like Python, and its types are the compiler's)
# ruff: noqa: ANN001, ANN201
"""Residual add and time-dependent norm of (b, n, d), forward and backward: one read of every input, one write.

A program owns ROWS tokens of one sample with all D channels, padded to the power of two COLUMNS. LAYER selects the
layer norm, s - mean over sqrt(variance + EPS); otherwise it is s over (rms + EPS). CENTRE (b, n) keeps the mean, SPREAD
(b, n) the root. What the kernels allocate is contiguous; *_b and *_n are strides over samples and tokens. ACC is the
precision of all arithmetic.
"""

import triton
import triton.language as tl


@triton.jit
def forward(
    X, R, GAMMA, BETA, Y, S, CENTRE, SPREAD, n, x_b, x_n, r_b, r_n, gamma_b, beta_b,
    D: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, LAYER: tl.constexpr, EPS: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """Y = norm(S) gamma + beta with S = X + R, or X if R is None; BETA may be None."""
    blocks = tl.cdiv(n, ROWS)
    b = (tl.program_id(0) // blocks).to(tl.int64)
    row = (tl.program_id(0) % blocks) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, COLUMNS)
    inside = (row < n)[:, None] & (d < D)[None, :]
    packed = row[:, None] * D + d[None, :]

    s = tl.load(X + b * x_b + row[:, None] * x_n + d[None, :], mask=inside, other=0.0).to(ACC)
    if R is not None:
        s += tl.load(R + b * r_b + row[:, None] * r_n + d[None, :], mask=inside, other=0.0).to(ACC)
        rounded = s.to(S.dtype.element_ty)
        tl.store(S + b * n * D + packed, rounded, mask=inside)
        s = rounded.to(ACC)  # normalise what the next block and the backward pass will read

    if LAYER:
        centre = tl.sum(s, 1) / D
        tl.store(CENTRE + b * n + row, centre, mask=row < n)
        s = tl.where(inside, s - centre[:, None], 0.0)
        spread = tl.sqrt(tl.sum(s * s, 1) / D + EPS)
        scale = 1.0 / spread
    else:
        spread = tl.sqrt(tl.sum(s * s, 1) / D)
        scale = 1.0 / (spread + EPS)
    tl.store(SPREAD + b * n + row, spread, mask=row < n)

    y = s * scale[:, None] * tl.load(GAMMA + b * gamma_b + d, mask=d < D, other=0.0).to(ACC)[None, :]
    if BETA is not None:
        y += tl.load(BETA + b * beta_b + d, mask=d < D, other=0.0).to(ACC)[None, :]
    tl.store(Y + b * n * D + packed, y.to(Y.dtype.element_ty), mask=inside)


@triton.jit
def backward(
    DY, DS, S, GAMMA, CENTRE, SPREAD, DX, DGAMMA, DBETA, n, chunk, dy_b, dy_n, ds_b, ds_n, s_b, s_n, gamma_b,
    D: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, LAYER: tl.constexpr, EPS: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """DX, and the sums over `chunk` tokens for DGAMMA and DBETA (b, chunks, d); DS, DGAMMA, DBETA may be None.

    With h = (s - centre) scale and g = dy gamma, the layer norm has dx = (g - mean(g) - h mean(g h)) scale and the RMS
    norm dx = (g - h mean(g h) / (rms scale)) scale, where a row of zeros has dx = g scale.
    """
    chunks = tl.cdiv(n, chunk)
    b = (tl.program_id(0) // chunks).to(tl.int64)
    first = (tl.program_id(0) % chunks) * chunk
    d = tl.arange(0, COLUMNS)
    gamma = tl.load(GAMMA + b * gamma_b + d, mask=d < D, other=0.0).to(ACC)
    dgamma = tl.zeros([COLUMNS], ACC)
    dbeta = tl.zeros([COLUMNS], ACC)
    for start in range(0, chunk, ROWS):
        row = first + start + tl.arange(0, ROWS)
        inside = (row < n)[:, None] & (d < D)[None, :]
        dy = tl.load(DY + b * dy_b + row[:, None] * dy_n + d[None, :], mask=inside, other=0.0).to(ACC)
        h = tl.load(S + b * s_b + row[:, None] * s_n + d[None, :], mask=inside, other=0.0).to(ACC)
        spread = tl.load(SPREAD + b * n + row, mask=row < n, other=1.0).to(ACC)
        if LAYER:
            centre = tl.load(CENTRE + b * n + row, mask=row < n, other=0.0).to(ACC)
            h = tl.where(inside, h - centre[:, None], 0.0)
            scale = 1.0 / spread
        else:
            scale = 1.0 / (spread + EPS)
        h = h * scale[:, None]
        g = dy * gamma[None, :]
        if DGAMMA is not None:
            dgamma += tl.sum(dy * h, 0)
        if DBETA is not None:
            dbeta += tl.sum(dy, 0)
        along = tl.sum(g * h, 1) / D
        if LAYER:
            g = g - (tl.sum(g, 1) / D)[:, None]
        else:
            along = tl.where(spread > 0, along / tl.where(spread > 0, spread * scale, 1.0), 0.0)
        dx = (g - h * along[:, None]) * scale[:, None]
        if DS is not None:
            dx += tl.load(DS + b * ds_b + row[:, None] * ds_n + d[None, :], mask=inside, other=0.0).to(ACC)
        tl.store(DX + b * n * D + row[:, None] * D + d[None, :], dx.to(DX.dtype.element_ty), mask=inside)
    part = (b * chunks + tl.program_id(0) % chunks) * D + d
    if DGAMMA is not None:
        tl.store(DGAMMA + part, dgamma, mask=d < D)
    if DBETA is not None:
        tl.store(DBETA + part, dbeta, mask=d < D)
