"""A trained model for more: twice the resolution, from 256 to 512 pixels, or wider text features (CrossFlow)."""

from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from einops import repeat

from cf_transformer.config import DiMRConfig, StageConfig
from cf_transformer.cross_attention_dimr import CrossAttentionDiMR
from cf_transformer.dimr import DiMR
from cf_transformer.head import VelocityHead
from cf_transformer.weight_files import filled


def grow_resolution(model: DiMR, n_new_stages: int = 1, generator: torch.Generator | None = None) -> DiMR:
    """A copy of `model` for f = 2^n_new_stages times the height and width, with that many convnext stages on top.

    Patches of the old stages grow by f, so their grids, positions, blocks and heads stay. The new patch weights
    are the old ones over f^2, each repeated on f x f pixels, so that the old stages see what they saw before:

        grown.scales(x_t, t)[:-n_new_stages] = model.scales(avgpool_f(x_t), t)    for every x_t

    New stages are drawn as a fresh model's, from `generator` (of the model's device), and their heads are zero:
    the velocity of the grown model is 0 until its first step. DiMR's multi-scale loss will ask the old heads for
    f times what they say on a nearest-upsampled pair: its targets are k avgpool_k(v), and k has grown by f.

    Raises ValueError where the last stage predicts patches instead of pixels: its head would change its shape.
    """
    config = grown_config(model.config, n_new_stages)
    like = next(model.parameters())
    with like.device:
        grown = DiMR(config, generator).to(like.dtype)
    for head in cast("list[VelocityHead]", list(grown.heads)[-n_new_stages:]):
        head.zero()
    factor = 2**n_new_stages
    state = model.state_dict()
    for s in range(len(model.stages)):
        name = f"stages.{s}.embed.project.weight"
        state[name] = repeat(state[name] / factor**2, "d c p q -> d c (p i) (q j)", i=factor, j=factor)
    grown.load_state_dict(grown.state_dict() | state)
    return grown


def grown_config(config: DiMRConfig, n_new_stages: int = 1) -> DiMRConfig:
    """The config of the grown model: every new stage has half the width of the one below and as many blocks."""
    if n_new_stages < 1:
        raise ValueError(f"n_new_stages must be at least 1, got {n_new_stages}")
    top = config.stages[-1]
    if top.patch != 1:
        raise ValueError(f"only a model whose last stage has patch 1 can grow, got patch {top.patch}")
    factor = 2**n_new_stages
    old = [replace(stage, patch=stage.patch * factor) for stage in config.stages]
    new = [
        StageConfig("convnext", top.d_model // 2**i, top.n_blocks, patch=factor // 2**i)
        for i in range(1, n_new_stages + 1)
    ]
    height, width = config.size
    return replace(config, size=(height * factor, width * factor), stages=(*old, *new))


def widen_context(model: CrossAttentionDiMR, context_width: int) -> CrossAttentionDiMR:
    """A copy of `model` that reads text tokens of `context_width` channels, the last of which count for nothing yet.

        widened(x_t, t, is_null, context=c) = model(x_t, t, is_null, context=c[..., :old])    for every c

    Key and value projections get columns of zeros, which learn from the first step; the null text gets zeros.
    Raises ValueError for fewer channels than `model` reads.
    """
    extra = context_width - model.config.context_width
    if extra < 0:
        raise ValueError(f"context_width can only grow: {model.config.context_width} to {context_width}")
    reading = ("text.null", ".cross.kv.weight")
    state = {
        name: F.pad(tensor, (0, extra)) if name.endswith(reading) else tensor.clone()
        for name, tensor in model.state_dict().items()
    }
    config = replace(model.config, context_width=context_width)
    return filled(lambda: CrossAttentionDiMR(config), state, "the widened model")
