"""Memory against time in training: what a block computes again in the backward pass instead of keeping it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from cf_transformer.config import RecomputeKind
from cf_transformer.kernels import attention as _registered  # noqa: F401 - its op is named below

_aten = torch.ops.aten
DEAR = [
    _aten.mm.default,
    _aten.addmm.default,
    _aten.bmm.default,
    _aten.baddbmm.default,
    _aten.convolution.default,
    _aten._scaled_dot_product_cudnn_attention.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.cf_transformer.attention_forward.default,
]
"""Products, convolutions and attention: `cheap` keeps their results and computes everything between them again."""


def keep_all(block: nn.Module, *inputs: Tensor) -> Tensor:
    """Nothing is computed twice."""
    return block(*inputs)


def keep_dear(block: nn.Module, *inputs: Tensor) -> Tensor:
    """Norms, gates and additions are computed twice, products once."""
    return _checkpointed(block, *inputs, context_fn=partial(create_selective_checkpoint_contexts, DEAR))


def keep_inputs(block: nn.Module, *inputs: Tensor) -> Tensor:
    """The whole block is computed twice; only its input is kept."""
    return _checkpointed(block, *inputs)


def _checkpointed(block: nn.Module, *inputs: Tensor, **options: Any) -> Tensor:
    if not torch.is_grad_enabled():
        return block(*inputs)
    # nothing in a block draws random numbers, so there is no generator to rewind
    return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False, **options)


RECOMPUTE: dict[RecomputeKind, Callable[..., Tensor]] = {
    "nothing": keep_all,
    "cheap": keep_dear,
    "blocks": keep_inputs,
}
