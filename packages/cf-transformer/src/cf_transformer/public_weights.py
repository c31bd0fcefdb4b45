"""The public CrossFlow checkpoints of DiMR, in and out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

from cf_transformer.config import DiMRConfig, StageConfig
from cf_transformer.dimr import DiMR
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
from cf_transformer.weight_files import require_match, shapes

TIME_LEAVES = {"param0": "param0", "param1": "param1", "w": "nodecay_weight", "b": "nodecay_bias"}

# The fields of a config that a public file fixes by its shapes, and those that change no function.
WRITTEN = {"channels", "size", "stages", "mlp_ratio", "kernel_size", "indicator"}
WITHOUT_EFFECT = {"attention", "init", "zero_init_head", "recompute"}


def load_public(
    path: str | Path,
    *,
    n_heads: int = 16,
    size: tuple[int, int] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> DiMR:
    """The velocity network of a public .pth file, released or `nnet.pth` / `nnet_ema.pth` of its trainer.

    n_heads  of the transformer stage; no shape tells it. All released models have 16.
    size     (height, width) of the latent, needed only where a stage's grid is not square.
    dtype    of the weights; None keeps the file's.

    What the file holds for other packages is left out and logged, by part and number of tensors. Raises
    ValueError naming every tensor that is missing, unexpected or of the wrong shape.
    """
    return load_backbone(path, lambda state: from_public(state, n_heads, size), DiMR, dtype, device)


def save_public(model: DiMR, path: str | Path) -> None:
    """Write `model` as a public .pth file that holds `stages.*` only; an old file survives a failed write.

    Raises ValueError where the public layout cannot say what the model is, as `to_public` does.
    """
    write_public(to_public(model), path)


def from_public(
    state: Mapping[str, Tensor], n_heads: int = 16, size: tuple[int, int] | None = None
) -> tuple[DiMRConfig, dict[str, Tensor]]:
    """(config, state dict of a DiMR) of a public state dict; `load_public` explains n_heads, size, errors."""
    backbone = split_public(state).get(BACKBONE, {})
    config = read_config(backbone, n_heads, size)
    rows = list(layout(config))
    expected = {name: row.shape for row in rows for name in row.public}
    require_match(shapes(backbone), expected, "the public backbone")
    with torch.device("meta"):
        ours = shapes(DiMR(config).state_dict())
    return config, gathered(rows, backbone, ours)


def to_public(model: DiMR) -> dict[str, Tensor]:
    """The state dict of `model` in public names and shapes; the tensors are views of the model's.

    Raises ValueError for a model that the public layout cannot hold: vectors as indicator, another activation,
    a transformer above the first stage, a last stage that predicts patches.
    """
    _require_public(model.config)
    return spread(layout(model.config), model.state_dict())


def layout(config: DiMRConfig) -> Iterator[Row]:
    """Every tensor of a DiMR with its public names."""
    yield Row("indicator.unconditional", ("stages.0.tensor_true",), (1,))
    yield Row("indicator.conditional", ("stages.0.tensor_false",), (1,))
    for s, stage in enumerate(config.stages):
        yield from _stage(config, stage, s)
    for s, (low, high) in enumerate(zip(config.stages, config.stages[1:], strict=False)):
        c_low, ratio = (low.n_blocks + 1) * low.d_model, low.patch // high.patch
        ours, public = f"cascades.{s}", f"stages.{s + 1}.upsample"
        yield from _layer_norm(ours, f"{public}.0", c_low)
        yield from layer(f"{ours}.project", [f"{public}.1.kernel"], ratio**2 * high.d_model, c_low)
        yield from _layer_norm(f"{ours}.norm", f"{public}.2", high.d_model)


def _stage(config: DiMRConfig, stage: StageConfig, s: int) -> Iterator[Row]:
    d, (rows, columns), name = stage.d_model, config.grid(stage), f"stages.{s}"
    patch = (config.channels, stage.patch, stage.patch)
    yield from layer(f"{name}.embed.project", [f"{name}.input_layer.1"], d, *patch)
    table = f"{name}.input_layer.3.position_embeddings.weight"
    yield Row(f"{name}.embed.position.table", (table,), (rows * columns, d))
    for i in range(stage.n_blocks):
        yield from _block(config, stage, f"{name}.blocks.{i}")
    for j in range(stage.n_blocks // 2):
        yield from layer(f"{name}.skips.{j}", [f"{name}.skip_denses.{j}"], d, 2 * d)
    norms = ("block1", "block2") if stage.kind == "transformer" else ("block2",)
    gains = [f"{name}.blocks.{i}.{norm}.norm.scale" for i in range(stage.n_blocks) for norm in norms]
    yield from _time(f"{name}.gains", gains, d)
    yield from _layer_norm(f"heads.{s}.norm", f"{name}.output_layer.0", d)
    yield from layer(f"heads.{s}.conv", [f"{name}.output_layer.2"], config.channels, d, 3, 3)


def _block(config: DiMRConfig, stage: StageConfig, name: str) -> Iterator[Row]:
    d, hidden = stage.d_model, config.hidden(stage)
    if stage.kind == "transformer":
        yield Row(f"{name}.attention.qkv.weight", (f"{name}.block1.query_key_value.weight",), (3 * d, d))
        yield from layer(f"{name}.attention.out", [f"{name}.block1.dense"], d, d)
    else:
        kernel = (1, config.kernel_size, config.kernel_size)
        yield from layer(f"{name}.depthwise", [f"{name}.block1.1"], d, *kernel)
    yield from layer(f"{name}.mlp.w_in", [f"{name}.block2.w0", f"{name}.block2.w1"], hidden, d)
    yield from layer(f"{name}.mlp.w_out", [f"{name}.block2.w2"], d, hidden)


def _layer_norm(ours: str, public: str, d: int) -> Iterator[Row]:
    yield from _time(f"{ours}.gain", [f"{public}.weight"], d)
    yield from _time(f"{ours}.shift", [f"{public}.bias"], d)


def _time(ours: str, public: Sequence[str], d: int) -> Iterator[Row]:
    for mine, theirs in TIME_LEAVES.items():
        yield Row(f"{ours}.{mine}", tuple(f"{name}.{theirs}" for name in public), (d,))


def read_config(
    backbone: Mapping[str, Tensor], n_heads: int = 16, size: tuple[int, int] | None = None
) -> DiMRConfig:
    """The config of `stages.*`, from names and shapes; only n_heads cannot be read."""
    n_stages = count(r"stages\.(\d+)\.", backbone)
    if n_stages == 0:
        raise ValueError(
            "no tensor starts with 'stages.0.': this is no DiMR; a DiT is read by load_public_dit"
        )
    stages = tuple(_read_stage(backbone, s, n_heads) for s in range(n_stages))
    _, channels, patch, _ = shape_of(backbone, "stages.0.input_layer.1.weight", 4)
    hidden, width = shape_of(backbone, "stages.0.blocks.0.block2.w0.weight", 2)
    kernel = 7  # without a convnext stage nothing tells it, and nothing uses it
    if n_stages > 1:
        kernel = shape_of(backbone, "stages.1.blocks.0.block1.1.weight", 4)[-1]
    if size is None:
        cells, _ = shape_of(backbone, "stages.0.input_layer.3.position_embeddings.weight", 2)
        size = square_size(cells, patch)
    return DiMRConfig(
        channels, size, stages, indicator="released", mlp_ratio=hidden / width, kernel_size=kernel
    )


def _read_stage(backbone: Mapping[str, Tensor], s: int, n_heads: int) -> StageConfig:
    d, _, patch, _ = shape_of(backbone, f"stages.{s}.input_layer.1.weight", 4)
    n_blocks = count(rf"stages\.{s}\.blocks\.(\d+)\.", backbone)
    if s == 0:
        return StageConfig("transformer", d, n_blocks, patch, n_heads)
    return StageConfig("convnext", d, n_blocks, patch)


def _require_public(config: DiMRConfig) -> None:
    if config.indicator != "released":
        raise ValueError(
            f"the public layout holds one number for each indicator, but indicator={config.indicator!r} learns a "
            "vector; train with DiMRConfig(indicator='released') or use save_pretrained"
        )
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name not in WRITTEN | WITHOUT_EFFECT and value != field.default:
            raise ValueError(
                f"the public layout means {field.name}={field.default!r}, got {value!r}; use save_pretrained"
            )
    first, *higher = config.stages
    for s, stage in enumerate(higher, start=1):
        if stage.kind != "convnext":
            raise ValueError(
                f"stage {s} of the public layout is a convnext, got {stage.kind!r}; use save_pretrained"
            )
    top = (higher or [first])[-1]
    if top.patch != 1:
        raise ValueError(
            f"the last stage of the public layout has patch 1, got {top.patch}; use save_pretrained"
        )
