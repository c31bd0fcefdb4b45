# type: ignore  (Triton's language only looks like Python, and its types are the compiler's)
# ruff: noqa: ANN001, ANN201
"""Per-head RMS norm and rotation of q and k in packed qkv (b, n, 3, k, e), v passed through; forward and backward.

A program owns ROWS tokens of one sample and TURN consecutive heads of q, of k or of v: grid (b * tiles, 3 k / TURN).
Pairs are (x[:e/2], x[e/2:]); HALF = e/2 is padded to the power of two PAIRS. COS and SIN are (n, e/2), GAIN (2, k) and
RSTD (b, 2, k, n). What the kernels allocate is contiguous; s_b, s_n, s_c and S_H are strides over samples, tokens,
q-k-v and heads, the last a constant so that a load knows its alignment. ACC is the precision of all arithmetic.
"""

import triton
import triton.language as tl


@triton.jit
def _own_tile(n, ROWS: tl.constexpr, HALF: tl.constexpr, PAIRS: tl.constexpr):
    """Of this program: its sample, its tokens, the offsets of their pairs in a table, and which of those exist."""
    tiles = tl.cdiv(n, ROWS)
    b = (tl.program_id(0) // tiles).to(tl.int64)
    token = (tl.program_id(0) % tiles) * ROWS + tl.arange(0, ROWS)
    pair = tl.arange(0, PAIRS)
    inside = (token < n)[:, None] & (pair < HALF)[None, :]
    return b, token, pair, inside


@triton.jit
def forward(
    QKV, COS, SIN, GAIN, OUT, RSTD, s_b, s_n, s_c, heads, n,
    S_H: tl.constexpr, HALF: tl.constexpr, PAIRS: tl.constexpr, ROWS: tl.constexpr, TURN: tl.constexpr,
    EPS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """OUT = R(token) x rstd gain with rstd = 1 / sqrt(mean(x^2) + EPS) for a head x of q or k."""
    b, token, pair, inside = _own_tile(n, ROWS, HALF, PAIRS)
    which = tl.program_id(1) * TURN // heads
    first = tl.program_id(1) * TURN % heads
    source = QKV + b * s_b + which * s_c + token[:, None] * s_n + pair[None, :]
    target = OUT + (b * n + token[:, None]) * 3 * heads * 2 * HALF + which * heads * 2 * HALF + pair[None, :]
    if which == 2:
        for h in range(first, first + TURN):
            x_0 = tl.load(source + h * S_H, mask=inside)
            x_1 = tl.load(source + h * S_H + HALF, mask=inside)
            tl.store(target + h * 2 * HALF, x_0, mask=inside)
            tl.store(target + h * 2 * HALF + HALF, x_1, mask=inside)
    else:
        table = token[:, None] * HALF + pair[None, :]
        c = tl.load(COS + table, mask=inside, other=1.0).to(ACC)
        s = tl.load(SIN + table, mask=inside, other=0.0).to(ACC)
        for h in range(first, first + TURN):
            x_0 = tl.load(source + h * S_H, mask=inside, other=0.0).to(ACC)
            x_1 = tl.load(source + h * S_H + HALF, mask=inside, other=0.0).to(ACC)
            rstd = 1.0 / tl.sqrt((tl.sum(x_0 * x_0, 1) + tl.sum(x_1 * x_1, 1)) / (2 * HALF) + EPS)
            tl.store(RSTD + ((b * 2 + which) * heads + h) * n + token, rstd, mask=token < n)
            scale = (rstd * tl.load(GAIN + which * heads + h).to(ACC))[:, None]
            y_0 = (x_0 * c - x_1 * s) * scale
            y_1 = (x_1 * c + x_0 * s) * scale
            tl.store(target + h * 2 * HALF, y_0.to(OUT.dtype.element_ty), mask=inside)
            tl.store(target + h * 2 * HALF + HALF, y_1.to(OUT.dtype.element_ty), mask=inside)


@triton.jit
def backward(
    DOUT, OUT, COS, SIN, GAIN, RSTD, DQKV, DGAIN, DCOS, DSIN, s_b, s_n, s_c, heads, n,
    S_H: tl.constexpr, HALF: tl.constexpr, PAIRS: tl.constexpr, ROWS: tl.constexpr, TURN: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """DQKV, and sums for DGAIN (b * tiles, 2, k) and DCOS, DSIN (b, 2 k / TURN, n, e/2), both of which may be None.

    The normalised head h is recovered from the output: h gain = R^-1 y, with R^-1 = R^T / (cos^2 + sin^2). With
    u = R^T dy, dx = (u - h mean(u h)) gain rstd and dgain = sum(u h). S_H and the other strides are those of DOUT.
    """
    b, token, pair, inside = _own_tile(n, ROWS, HALF, PAIRS)
    which = tl.program_id(1) * TURN // heads
    first = tl.program_id(1) * TURN % heads
    source = DOUT + b * s_b + which * s_c + token[:, None] * s_n + pair[None, :]
    packed = (b * n + token[:, None]) * 3 * heads * 2 * HALF + which * heads * 2 * HALF + pair[None, :]
    if which == 2:
        for h in range(first, first + TURN):
            dy_0 = tl.load(source + h * S_H, mask=inside)
            dy_1 = tl.load(source + h * S_H + HALF, mask=inside)
            tl.store(DQKV + packed + h * 2 * HALF, dy_0, mask=inside)
            tl.store(DQKV + packed + h * 2 * HALF + HALF, dy_1, mask=inside)
    else:
        table = token[:, None] * HALF + pair[None, :]
        c = tl.load(COS + table, mask=inside, other=1.0).to(ACC)
        s = tl.load(SIN + table, mask=inside, other=0.0).to(ACC)
        undo = 1.0 / (c * c + s * s)
        dc = tl.zeros([ROWS, PAIRS], ACC)
        ds = tl.zeros([ROWS, PAIRS], ACC)
        for h in range(first, first + TURN):
            y_0 = tl.load(OUT + packed + h * 2 * HALF, mask=inside, other=0.0).to(ACC)
            y_1 = tl.load(OUT + packed + h * 2 * HALF + HALF, mask=inside, other=0.0).to(ACC)
            dy_0 = tl.load(source + h * S_H, mask=inside, other=0.0).to(ACC)
            dy_1 = tl.load(source + h * S_H + HALF, mask=inside, other=0.0).to(ACC)
            h_0 = (y_0 * c + y_1 * s) * undo
            h_1 = (y_1 * c - y_0 * s) * undo
            if DCOS is not None:
                dc += dy_0 * h_0 + dy_1 * h_1
                ds += dy_1 * h_0 - dy_0 * h_1
            gain = tl.load(GAIN + which * heads + h).to(ACC)
            known = gain != 0.0  # a gain of 0 has lost h; its own gradient is then 0 instead of 0/0
            per_gain = tl.where(known, 1.0 / tl.where(known, gain, 1.0), 0.0)
            h_0 = h_0 * per_gain
            h_1 = h_1 * per_gain
            u_0 = dy_0 * c + dy_1 * s
            u_1 = dy_1 * c - dy_0 * s
            along = tl.sum(u_0 * h_0, 1) + tl.sum(u_1 * h_1, 1)
            row = which * heads + h
            tl.store(DGAIN + tl.program_id(0).to(tl.int64) * 2 * heads + row, tl.sum(along, 0))
            rstd = tl.load(RSTD + (b * 2 * heads + row) * n + token, mask=token < n, other=0.0).to(ACC)
            scale = (rstd * gain)[:, None]
            mean = (along / (2 * HALF))[:, None]
            tl.store(
                DQKV + packed + h * 2 * HALF,
                ((u_0 - h_0 * mean) * scale).to(DQKV.dtype.element_ty),
                mask=inside,
            )
            tl.store(
                DQKV + packed + h * 2 * HALF + HALF,
                ((u_1 - h_1 * mean) * scale).to(DQKV.dtype.element_ty),
                mask=inside,
            )
        if DCOS is not None:
            part = (b * (2 * heads // TURN) + tl.program_id(1)) * n * HALF + table
            tl.store(DCOS + part, dc, mask=inside)
            tl.store(DSIN + part, ds, mask=inside)
