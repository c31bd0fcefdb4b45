# type: ignore  (Triton's language only looks like Python, and its types are the compiler's)
# ruff: noqa: ANN001, ANN201
"""Layer norm over the concatenation of S maps (b, n, d) that lie apart, forward and backward, without concatenating.

A row of S d channels (67,584 in DiMR) is too wide for one program, so two kernels each way: the first walks along the
maps for its ROWS tokens and leaves two numbers per token, the second, one program per block of tokens and map, uses
them. TABLE has a row (address, stride over samples, stride over tokens) of int64 for every map, ALIGN bytes divide the
addresses, UNIT elements the strides. COLUMNS is D padded to a power of two. What the kernels allocate is contiguous.
MAP is the precision of the maps, ACC that of all arithmetic.
"""

import triton
import triton.language as tl


@triton.jit
def _block(pid, n, D: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr):
    """The sample, tokens and channels of a block, and which of them exist."""
    blocks = tl.cdiv(n, ROWS)
    b = (pid // blocks).to(tl.int64)
    row = (pid % blocks) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, COLUMNS)
    return b, row, d, (row < n)[:, None] & (d < D)[None, :]


@triton.jit
def _of_map(
    TABLE, i, b, row, d, inside, MAP: tl.constexpr, ALIGN: tl.constexpr, UNIT: tl.constexpr, ACC: tl.constexpr
):
    # what comes from memory has no known divisor: without the hints every load is one element wide
    address = tl.multiple_of(tl.load(TABLE + 3 * i).to(tl.pointer_type(MAP)), ALIGN)
    step_b = tl.multiple_of(tl.load(TABLE + 3 * i + 1), UNIT)
    step_n = tl.multiple_of(tl.load(TABLE + 3 * i + 2), UNIT)
    return tl.load(address + b * step_b + row[:, None] * step_n + d[None, :], mask=inside, other=0.0).to(ACC)


@triton.jit
def moments(
    TABLE, CENTRE, SPREAD, n, maps,
    D: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, EPS: tl.constexpr,
    MAP: tl.constexpr, ALIGN: tl.constexpr, UNIT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """CENTRE (b, n) = mean and SPREAD (b, n) = sqrt(variance + EPS) over all channels.

    Each map's own mean and squared deviations join those of the maps before it (Chan, Golub and LeVeque 1979): no
    difference of large squares, however far the mean is from zero.
    """
    b, row, d, inside = _block(tl.program_id(0), n, D, COLUMNS, ROWS)
    seen = tl.zeros([ROWS], ACC)
    centre = tl.zeros([ROWS], ACC)
    squares = tl.zeros([ROWS], ACC)
    for i in range(0, maps):
        x = _of_map(TABLE, i, b, row, d, inside, MAP, ALIGN, UNIT, ACC)
        own = tl.sum(x, 1) / D
        x = tl.where(inside, x - own[:, None], 0.0)
        apart = own - centre
        weight = 1.0 / (seen + 1.0)
        centre += apart * weight
        squares += tl.sum(x * x, 1) + apart * apart * (D * seen * weight)
        seen += 1.0
    tl.store(CENTRE + b * n + row, centre, mask=row < n)
    tl.store(SPREAD + b * n + row, tl.sqrt(squares / (D * seen) + EPS), mask=row < n)


@triton.jit
def forward(
    TABLE, GAMMA, BETA, CENTRE, SPREAD, Y, n, gamma_b, beta_b,
    D: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr,
    MAP: tl.constexpr, ALIGN: tl.constexpr, UNIT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Y (b, n, S d) = (x - centre) / spread gamma + beta; axis 1 of the programs is the map."""
    i = tl.program_id(1)
    width = tl.num_programs(1) * D
    b, row, d, inside = _block(tl.program_id(0), n, D, COLUMNS, ROWS)
    x = _of_map(TABLE, i, b, row, d, inside, MAP, ALIGN, UNIT, ACC)
    centre = tl.load(CENTRE + b * n + row, mask=row < n, other=0.0)
    scale = 1.0 / tl.load(SPREAD + b * n + row, mask=row < n, other=1.0)
    gamma = tl.load(GAMMA + b * gamma_b + i * D + d, mask=d < D, other=0.0).to(ACC)
    beta = tl.load(BETA + b * beta_b + i * D + d, mask=d < D, other=0.0).to(ACC)
    y = (x - centre[:, None]) * scale[:, None] * gamma[None, :] + beta[None, :]
    out = Y + (b * n + row)[:, None] * width + i * D + d[None, :]
    tl.store(out, y.to(Y.dtype.element_ty), mask=inside)


@triton.jit
def means(
    TABLE, DY, GAMMA, CENTRE, SPREAD, MEANS, n, maps, dy_b, dy_n, gamma_b,
    D: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr,
    MAP: tl.constexpr, ALIGN: tl.constexpr, UNIT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """MEANS (2, b, n) = mean(g), mean(g h) over all channels, with g = dy gamma and h the normalised x."""
    b, row, d, inside = _block(tl.program_id(0), n, D, COLUMNS, ROWS)
    centre = tl.load(CENTRE + b * n + row, mask=row < n, other=0.0)
    scale = 1.0 / tl.load(SPREAD + b * n + row, mask=row < n, other=1.0)
    of_g = tl.zeros([ROWS], ACC)
    of_gh = tl.zeros([ROWS], ACC)
    for i in range(0, maps):
        x = _of_map(TABLE, i, b, row, d, inside, MAP, ALIGN, UNIT, ACC)
        gamma = tl.load(GAMMA + b * gamma_b + i * D + d, mask=d < D, other=0.0).to(ACC)
        dy = DY + b * dy_b + row[:, None] * dy_n + i * D + d[None, :]
        g = tl.load(dy, mask=inside, other=0.0).to(ACC) * gamma[None, :]
        of_g += tl.sum(g, 1)
        of_gh += tl.sum(g * (x - centre[:, None]), 1) * scale
    whole = tl.num_programs(0) // tl.cdiv(n, ROWS) * n
    tl.store(MEANS + b * n + row, of_g / (D * maps), mask=row < n)
    tl.store(MEANS + whole + b * n + row, of_gh / (D * maps), mask=row < n)


@triton.jit
def backward(
    TABLE, DY, GAMMA, CENTRE, SPREAD, MEANS, DX, DGAMMA, DBETA, n, chunk, dy_b, dy_n, gamma_b,
    D: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr,
    MAP: tl.constexpr, ALIGN: tl.constexpr, UNIT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """DX (S, b, n, d) = (g - mean(g) - h mean(g h)) / spread; DGAMMA, DBETA (b, chunks, S d), if any, sum over chunks.

    Axis 0 of the programs is the sample and chunk of tokens, axis 1 the map.
    """
    chunks = tl.cdiv(n, chunk)
    b = (tl.program_id(0) // chunks).to(tl.int64)
    samples = tl.num_programs(0) // chunks
    i = tl.program_id(1)
    d = tl.arange(0, COLUMNS)
    gamma = tl.load(GAMMA + b * gamma_b + i * D + d, mask=d < D, other=0.0).to(ACC)
    dgamma = tl.zeros([COLUMNS], ACC)
    dbeta = tl.zeros([COLUMNS], ACC)
    for start in range(0, chunk, ROWS):
        row = (tl.program_id(0) % chunks) * chunk + start + tl.arange(0, ROWS)
        inside = (row < n)[:, None] & (d < D)[None, :]
        token = b * n + row
        centre = tl.load(CENTRE + token, mask=row < n, other=0.0)
        scale = 1.0 / tl.load(SPREAD + token, mask=row < n, other=1.0)
        mean_g = tl.load(MEANS + token, mask=row < n, other=0.0)
        mean_gh = tl.load(MEANS + samples * n + token, mask=row < n, other=0.0)
        x = _of_map(TABLE, i, b, row, d, inside, MAP, ALIGN, UNIT, ACC)
        dy = DY + b * dy_b + row[:, None] * dy_n + i * D + d[None, :]
        dy = tl.load(dy, mask=inside, other=0.0).to(ACC)
        h = (x - centre[:, None]) * scale[:, None]
        if DGAMMA is not None:
            dgamma += tl.sum(dy * h, 0)  # dy is zero where nothing is inside
        if DBETA is not None:
            dbeta += tl.sum(dy, 0)
        dx = (dy * gamma[None, :] - mean_g[:, None] - h * mean_gh[:, None]) * scale[:, None]
        out = DX + ((i * samples + b) * n + row)[:, None] * D + d[None, :]
        tl.store(out, dx.to(MAP), mask=inside)
    part = tl.program_id(0).to(tl.int64) * tl.num_programs(1) * D + i * D + d
    if DGAMMA is not None:
        tl.store(DGAMMA + part, dgamma, mask=d < D)
    if DBETA is not None:
        tl.store(DBETA + part, dbeta, mask=d < D)
