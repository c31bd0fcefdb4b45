# type: ignore  (Triton's language only looks like Python, and its types are the compiler's)
# ruff: noqa: ANN001, ANN201
"""Full softmax attention on packed qkv (b, n, 3, k, e): one forward kernel, two backward kernels without atomics.

Token 0 may stand apart (APART = 1): where the other n - 1 tokens fill whole tiles, as 1 + 64 m tokens do, its key
starts the online softmax and its query row is one program of its own. No tile then holds a padded key: with 1 + 256
tokens and tiles of 64 that is 4 tiles of keys instead of 5. With APART = 0 the last tile is masked unless it is EVEN.

Everything the kernels allocate is contiguous; qkv is read by its strides, of which that of a head, S_H, is a constant
(a width of 60 then still loads 8 bytes at a time). Widths E that are no power of two are padded with zeros to EP.
LSE and DELTA are (b, k, n); LSE is in base 2. ACC is the precision of all arithmetic but the operands of tl.dot.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _rows(base, i, stride, end, E: tl.constexpr, EP: tl.constexpr, MASK: tl.constexpr):
    """Rows i of a matrix with E columns as a tile of EP columns; zeros beyond E and, if MASK, from row `end` on."""
    e = tl.arange(0, EP)
    pointers = base + i[:, None] * stride + e[None, :]
    if MASK:
        inside = (i < end)[:, None]
        if E < EP:
            inside = inside & (e < E)[None, :]
        x = tl.load(pointers, mask=inside, other=0.0)
    elif E < EP:
        x = tl.load(pointers, mask=(e < E)[None, :], other=0.0)
    else:
        x = tl.load(pointers)
    return x


@triton.jit
def _store_rows(base, i, stride, end, x, E: tl.constexpr, EP: tl.constexpr):
    e = tl.arange(0, EP)
    inside = (i < end)[:, None] & (e < E)[None, :]
    tl.store(base + i[:, None] * stride + e[None, :], x.to(base.dtype.element_ty), mask=inside)


@triton.jit
def _vector(base, E: tl.constexpr, EP: tl.constexpr, ACC: tl.constexpr):
    e = tl.arange(0, EP)
    return tl.load(base + e, mask=e < E, other=0.0).to(ACC)


@triton.jit
def _own_rows(n, APART: tl.constexpr, SIZE: tl.constexpr):
    """Of this program: sample-and-head, the rows of its tile and their end. Token 0 apart is the last tile."""
    tiles = tl.cdiv(n - APART, SIZE) + APART
    tile = tl.program_id(0) % tiles
    rows = APART + tile * SIZE + tl.arange(0, SIZE)
    end = n
    if APART:
        alone = tile == tiles - 1
        rows = tl.where(alone, tl.arange(0, SIZE), rows)
        end = tl.where(alone, 1, n)
    return tl.program_id(0) // tiles, rows, end


@triton.jit
def forward(
    QKV, OUT, LSE, s_b, s_n, s_c, heads, n,
    S_H: tl.constexpr, E: tl.constexpr, EP: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, APART: tl.constexpr, EVEN: tl.constexpr, SCALE: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """O = softmax(Q K^T SCALE) V for ROWS query rows of one head; keys come in tiles of COLUMNS."""
    bh, i, end = _own_rows(n, APART, ROWS)
    b = (bh // heads).to(tl.int64)
    h = bh % heads
    q_base = QKV + b * s_b + h * S_H
    k_base = q_base + s_c
    v_base = k_base + s_c
    q = _rows(q_base, i, s_n, end, E, EP, True)
    if APART:
        top = tl.sum(q.to(ACC) * _vector(k_base, E, EP, ACC)[None, :], 1) * (SCALE * LOG2_E)
        total = tl.full([ROWS], 1.0, ACC)
        o = tl.zeros([ROWS, EP], ACC) + _vector(v_base, E, EP, ACC)[None, :]
    else:
        top = tl.full([ROWS], float("-inf"), ACC)
        total = tl.zeros([ROWS], ACC)
        o = tl.zeros([ROWS, EP], ACC)
    for start in range(APART, n, COLUMNS):
        j = start + tl.arange(0, COLUMNS)
        k = _rows(k_base, j, s_n, n, E, EP, not EVEN)
        v = _rows(v_base, j, s_n, n, E, EP, not EVEN)
        s = tl.dot(q, tl.trans(k), out_dtype=ACC, input_precision="ieee") * (SCALE * LOG2_E)
        if not EVEN:
            s = tl.where((j < n)[None, :], s, float("-inf"))
        new_top = tl.maximum(top, tl.max(s, 1))
        p = tl.exp2(s - new_top[:, None])
        shrink = tl.exp2(top - new_top)
        total = total * shrink + tl.sum(p, 1)
        o = tl.dot(p.to(v.dtype), v, o * shrink[:, None], out_dtype=ACC, input_precision="ieee")
        top = new_top
    o_base = OUT + b * n * heads * E + h * E
    _store_rows(o_base, i, heads * E, end, o / total[:, None], E, EP)
    tl.store(LSE + bh.to(tl.int64) * n + i, top + tl.log2(total), mask=i < end)


@triton.jit
def backward_q(
    QKV, OUT, DOUT, LSE, DELTA, DQKV, s_b, s_n, s_c, heads, n,
    S_H: tl.constexpr, E: tl.constexpr, EP: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, APART: tl.constexpr, EVEN: tl.constexpr, SCALE: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """dQ = SCALE P (dP - delta) K with dP = dO V^T; also leaves delta = rowsum(dO O) for backward_kv."""
    bh, i, end = _own_rows(n, APART, ROWS)
    b = (bh // heads).to(tl.int64)
    h = bh % heads
    q_base = QKV + b * s_b + h * S_H
    k_base = q_base + s_c
    v_base = k_base + s_c
    o_base = b * n * heads * E + h * E
    stats = bh.to(tl.int64) * n + i
    q = _rows(q_base, i, s_n, end, E, EP, True)
    do = _rows(DOUT + o_base, i, heads * E, end, E, EP, True)
    o = _rows(OUT + o_base, i, heads * E, end, E, EP, True)
    delta = tl.sum(do.to(ACC) * o.to(ACC), 1)
    tl.store(DELTA + stats, delta, mask=i < end)
    lse = tl.load(LSE + stats, mask=i < end, other=float("inf")).to(ACC)
    if APART:
        k_0 = _vector(k_base, E, EP, ACC)
        p_0 = tl.exp2(tl.sum(q.to(ACC) * k_0[None, :], 1) * (SCALE * LOG2_E) - lse)
        dp_0 = tl.sum(do.to(ACC) * _vector(v_base, E, EP, ACC)[None, :], 1)
        dq = (p_0 * (dp_0 - delta))[:, None] * k_0[None, :]
    else:
        dq = tl.zeros([ROWS, EP], ACC)
    for start in range(APART, n, COLUMNS):
        j = start + tl.arange(0, COLUMNS)
        k = _rows(k_base, j, s_n, n, E, EP, not EVEN)
        v = _rows(v_base, j, s_n, n, E, EP, not EVEN)
        s = tl.dot(q, tl.trans(k), out_dtype=ACC, input_precision="ieee") * (SCALE * LOG2_E)
        if not EVEN:
            s = tl.where((j < n)[None, :], s, float("-inf"))
        p = tl.exp2(s - lse[:, None])
        dp = tl.dot(do, tl.trans(v), out_dtype=ACC, input_precision="ieee")
        ds = p * (dp - delta[:, None])
        dq = tl.dot(ds.to(k.dtype), k, dq, out_dtype=ACC, input_precision="ieee")
    _store_rows(DQKV + b * n * 3 * heads * E + h * E, i, 3 * heads * E, end, dq * SCALE, E, EP)


@triton.jit
def backward_kv(
    QKV, DOUT, LSE, DELTA, DQKV, s_b, s_n, s_c, heads, n,
    S_H: tl.constexpr, E: tl.constexpr, EP: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, APART: tl.constexpr, EVEN: tl.constexpr, SCALE: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """dV = P^T dO and dK = SCALE dS^T Q for COLUMNS key rows of one head; queries come in tiles of ROWS."""
    bh, j, end = _own_rows(n, APART, COLUMNS)
    b = (bh // heads).to(tl.int64)
    h = bh % heads
    q_base = QKV + b * s_b + h * S_H
    k_base = q_base + s_c
    do_base = DOUT + b * n * heads * E + h * E
    lse_base = LSE + bh.to(tl.int64) * n
    delta_base = DELTA + bh.to(tl.int64) * n
    k = _rows(k_base, j, s_n, end, E, EP, True)
    v = _rows(k_base + s_c, j, s_n, end, E, EP, True)
    if APART:
        q_0 = _vector(q_base, E, EP, ACC)
        do_0 = _vector(do_base, E, EP, ACC)
        p_0 = tl.exp2(tl.sum(k.to(ACC) * q_0[None, :], 1) * (SCALE * LOG2_E) - tl.load(lse_base).to(ACC))
        dp_0 = tl.sum(v.to(ACC) * do_0[None, :], 1)
        dv = p_0[:, None] * do_0[None, :]
        dk = (p_0 * (dp_0 - tl.load(delta_base).to(ACC)))[:, None] * q_0[None, :]
    else:
        dv = tl.zeros([COLUMNS, EP], ACC)
        dk = tl.zeros([COLUMNS, EP], ACC)
    for start in range(APART, n, ROWS):
        i = start + tl.arange(0, ROWS)
        q = _rows(q_base, i, s_n, n, E, EP, not EVEN)
        do = _rows(do_base, i, heads * E, n, E, EP, not EVEN)
        if EVEN:
            lse = tl.load(lse_base + i).to(ACC)
            delta = tl.load(delta_base + i).to(ACC)
        else:  # a query that is not there attends to nothing: p = exp2(-inf)
            lse = tl.load(lse_base + i, mask=i < n, other=float("inf")).to(ACC)
            delta = tl.load(delta_base + i, mask=i < n, other=0.0).to(ACC)
        s = tl.dot(k, tl.trans(q), out_dtype=ACC, input_precision="ieee") * (SCALE * LOG2_E)
        p = tl.exp2(s - lse[None, :])  # may overflow in rows of keys that are not there; those are not stored
        dv = tl.dot(p.to(do.dtype), do, dv, out_dtype=ACC, input_precision="ieee")
        dp = tl.dot(v, tl.trans(do), out_dtype=ACC, input_precision="ieee")
        ds = p * (dp - delta[None, :])
        dk = tl.dot(ds.to(q.dtype), q, dk, out_dtype=ACC, input_precision="ieee")
    dk_base = DQKV + b * n * 3 * heads * E + (heads + h) * E
    _store_rows(dk_base, j, 3 * heads * E, end, dk * SCALE, E, EP)
    _store_rows(dk_base + heads * E, j, 3 * heads * E, end, dv, E, EP)
