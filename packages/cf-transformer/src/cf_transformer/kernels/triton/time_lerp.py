# type: ignore  (Triton's language only looks like Python, and its types are the compiler's)
# ruff: noqa: ANN001, ANN201
"""gamma(t) of many sets of vectors in one launch, forward and backward.

TABLE has a row of int64 for every tile of at most COLUMNS elements of one set: the addresses there of param0, param1, w
and b, the tile's place among the `total` elements of all sets, and its length. With c = 1 - 2 t:

    s = sigmoid((1 + w) c + b),   gamma = param1 + s (param0 - param1)

OUT and DOUT are (b, total). ALIGN is a number of bytes that divides every address, UNIT a
number of elements that divides the size of every set.
LEAF is the precision of the leaves, ACC that of all arithmetic and of what the kernels write.
"""

import triton
import triton.language as tl


@triton.jit
def _tile(
    TABLE,
    COLUMNS: tl.constexpr,
    LEAF: tl.constexpr,
    ALIGN: tl.constexpr,
    UNIT: tl.constexpr,
    ACC: tl.constexpr,
):
    """Of this program's tile: param0 - param1, param1, 1 + w, b, its place, and which elements exist."""
    # what comes from memory has no known divisor: without the hints every load and store is one element wide
    row = TABLE + tl.program_id(0) * 6
    i = tl.arange(0, COLUMNS)
    place = tl.multiple_of(tl.load(row + 4), UNIT) + i
    inside = i < tl.multiple_of(tl.load(row + 5), UNIT)
    param0 = _leaf(row, i, inside, LEAF, ALIGN, ACC)
    param1 = _leaf(row + 1, i, inside, LEAF, ALIGN, ACC)
    w = _leaf(row + 2, i, inside, LEAF, ALIGN, ACC)
    b = _leaf(row + 3, i, inside, LEAF, ALIGN, ACC)
    return param0 - param1, param1, 1.0 + w, b, place, inside


@triton.jit
def _leaf(address, i, inside, LEAF: tl.constexpr, ALIGN: tl.constexpr, ACC: tl.constexpr):
    leaf = tl.multiple_of(tl.load(address).to(tl.pointer_type(LEAF)), ALIGN)
    return tl.load(leaf + i, mask=inside, other=0.0).to(ACC)


@triton.jit
def forward(
    TABLE, T, OUT, b, t_b, total,
    COLUMNS: tl.constexpr, ROWS: tl.constexpr,
    LEAF: tl.constexpr, ALIGN: tl.constexpr, UNIT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """A program computes one tile for ROWS samples."""
    change, param1, slope, shift, place, inside = _tile(TABLE, COLUMNS, LEAF, ALIGN, UNIT, ACC)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    c = 1.0 - 2.0 * tl.load(T + row * t_b, mask=row < b, other=0.0).to(ACC)
    s = tl.sigmoid(slope[None, :] * c[:, None] + shift[None, :])
    out = OUT + row.to(tl.int64)[:, None] * total + place[None, :]
    tl.store(out, param1[None, :] + s * change[None, :], mask=(row < b)[:, None] & inside[None, :])


@triton.jit
def backward(
    TABLE, T, DOUT, DLEAVES, DT, b, t_b, dout_b, total,
    COLUMNS: tl.constexpr, ROWS: tl.constexpr,
    LEAF: tl.constexpr, ALIGN: tl.constexpr, UNIT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """A program owns one tile: DLEAVES (4, total) summed over all samples in order, and its share of DT (b, tiles)."""
    change, _, slope, shift, place, inside = _tile(TABLE, COLUMNS, LEAF, ALIGN, UNIT, ACC)
    dparam0 = tl.zeros([COLUMNS], ACC)
    dparam1 = tl.zeros([COLUMNS], ACC)
    dw = tl.zeros([COLUMNS], ACC)
    db = tl.zeros([COLUMNS], ACC)
    for start in range(0, b, ROWS):
        row = start + tl.arange(0, ROWS)
        c = 1.0 - 2.0 * tl.load(T + row * t_b, mask=row < b, other=0.0).to(ACC)
        s = tl.sigmoid(slope[None, :] * c[:, None] + shift[None, :])
        dout = DOUT + row.to(tl.int64)[:, None] * dout_b + place[None, :]
        g = tl.load(dout, mask=(row < b)[:, None] & inside[None, :], other=0.0).to(ACC)
        dparam0 += tl.sum(g * s, 0)
        dparam1 += tl.sum(g * (1.0 - s), 0)
        dz = g * change[None, :] * s * (1.0 - s)  # z = (1 + w) c + b
        dw += tl.sum(dz * c[:, None], 0)
        db += tl.sum(dz, 0)
        if DT is not None:
            share = -2.0 * tl.sum(dz * slope[None, :], 1)
            tl.store(DT + row.to(tl.int64) * tl.num_programs(0) + tl.program_id(0), share, mask=row < b)
    tl.store(DLEAVES + place, dparam0, mask=inside)
    tl.store(DLEAVES + total + place, dparam1, mask=inside)
    tl.store(DLEAVES + 2 * total + place, dw, mask=inside)
    tl.store(DLEAVES + 3 * total + place, db, mask=inside)
