"""The public CrossFlow checkpoint of DiT, in and out."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from cf_transformer.dit import TIME_FEATURES, DiT
from cf_transformer.dit_config import DiTConfig
from cf_transformer.public_files import (
    BACKBONE,
    Row,
    count,
    gathered,
    layer,
    load_backbone,
    shape_of,
    split_public,
    spread,
    square_size,
    write_public,
)
from cf_transformer.sinusoid import grid_positions
from cf_transformer.weight_files import require_match, shapes

POSITIONS = "pos_embed"  # fixed, but stored
INDICATORS = "y_embedder.embedding_table.weight"  # row 0: conditional, row 1: unconditional
TIME_SCALE = 1.0  # the public code embeds t in [0, 1] as it is
POSITION_TOLERANCE = 0.01  # a table in bf16 is this near; another order of rows or channels is 1 away


def load_public_dit(
    path: str | Path,
    *,
    n_heads: int = 20,
    size: tuple[int, int] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> DiT:
    """The DiT of a public .pth file. No shape tells `n_heads`: DiT-H/2, the released one, has 20.

    The rest is as in `load_public`. The stored positions are compared with ours, which are computed.
    """
    return load_backbone(path, lambda state: from_public_dit(state, n_heads, size), DiT, dtype, device)


def save_public_dit(model: DiT, path: str | Path) -> None:
    """Write `model` as a public .pth file that holds the DiT only; an old file survives a failed write.

    Raises ValueError where the public layout cannot say what the model is, as `to_public_dit` does.
    """
    write_public(to_public_dit(model), path)


def from_public_dit(
    state: Mapping[str, Tensor], n_heads: int = 20, size: tuple[int, int] | None = None
) -> tuple[DiTConfig, dict[str, Tensor]]:
    """(config, state dict of a DiT) of a public state dict; `load_public_dit` explains n_heads and size."""
    backbone = split_public(state).get(BACKBONE, {})
    config = read_dit_config(backbone, n_heads, size)
    rows = list(dit_layout(config))
    expected = {name: row.shape for row in rows for name in row.public}
    positions = _positions(config)
    expected |= {POSITIONS: tuple(positions.shape), INDICATORS: (2, config.d_model)}
    require_match(shapes(backbone), expected, "the public backbone")
    stored = backbone[POSITIONS]
    if not stored.is_meta and (stored - positions).abs().max() > POSITION_TOLERANCE:
        raise ValueError(
            f"{POSITIONS} does not hold the sines and cosines of a DiT on a grid of {config.grid}"
        )
    with torch.device("meta"):
        ours = shapes(DiT(config).state_dict())
    conditional, unconditional = (row.clone() for row in backbone[INDICATORS])
    indicators = {"indicator.conditional": conditional, "indicator.unconditional": unconditional}
    return config, gathered(rows, backbone, ours) | indicators


def to_public_dit(model: DiT) -> dict[str, Tensor]:
    """The state dict of `model` in public names and shapes, positions included.

    Raises ValueError for a time scale other than the public one.
    """
    if model.config.time_scale != TIME_SCALE:
        raise ValueError(
            f"the public layout means time_scale={TIME_SCALE}, got {model.config.time_scale}; use save_pretrained"
        )
    state = model.state_dict()
    table = torch.stack([state["indicator.conditional"], state["indicator.unconditional"]])
    positions = _positions(model.config).to(table)
    return spread(dit_layout(model.config), state) | {POSITIONS: positions, INDICATORS: table}


def dit_layout(config: DiTConfig) -> Iterator[Row]:
    """Every tensor of a DiT with its public name, but for the indicators, which share one."""
    d, cell = config.d_model, config.patch**2 * config.channels
    yield from layer("embed.project", ["x_embedder.proj"], d, config.channels, config.patch, config.patch)
    yield from layer("time.w1", ["t_embedder.mlp.0"], d, TIME_FEATURES)
    yield from layer("time.w2", ["t_embedder.mlp.2"], d, d)
    for i in range(config.n_blocks):
        name = f"blocks.{i}"
        yield from layer(f"{name}.attention.qkv", [f"{name}.attn.qkv"], 3 * d, d)
        yield from layer(f"{name}.attention.out", [f"{name}.attn.proj"], d, d)
        yield from layer(f"{name}.w1", [f"{name}.mlp.fc1"], config.hidden, d)
        yield from layer(f"{name}.w2", [f"{name}.mlp.fc2"], d, config.hidden)
        yield from layer(f"{name}.modulation", [f"{name}.adaLN_modulation.1"], 6 * d, d)
    yield from layer("head.modulation", ["final_layer.adaLN_modulation.1"], 2 * d, d)
    yield from layer("head.project", ["final_layer.linear"], cell, d)


def read_dit_config(
    backbone: Mapping[str, Tensor], n_heads: int = 20, size: tuple[int, int] | None = None
) -> DiTConfig:
    """The config of a public DiT, from names and shapes; only n_heads cannot be read."""
    d, channels, patch, _ = shape_of(backbone, "x_embedder.proj.weight", 4)
    hidden, _ = shape_of(backbone, "blocks.0.mlp.fc1.weight", 2)
    n_blocks = count(r"blocks\.(\d+)\.", backbone)
    _, cells, _ = shape_of(backbone, POSITIONS, 3)
    size = size or square_size(cells, patch)
    return DiTConfig(channels, size, d, n_blocks, n_heads, patch, mlp_ratio=hidden / d, time_scale=TIME_SCALE)


def _positions(config: DiTConfig) -> Tensor:
    like = torch.empty(0, dtype=torch.float64, device="cpu")
    return grid_positions(config.grid, config.d_model, like)[None]
