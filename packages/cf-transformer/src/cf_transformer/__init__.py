"""Velocity networks for flow matching: DiMR, DiT and CrossFlow's cross-attention baseline, with Triton kernels."""

from cf_transformer.cascade import Cascade
from cf_transformer.config import DiMRConfig, StageConfig
from cf_transformer.count import count_macs, count_parameters
from cf_transformer.cross_attention_dimr import CrossAttentionConfig, CrossAttentionDiMR
from cf_transformer.dimr import DiMR
from cf_transformer.dit import DiT
from cf_transformer.dit_config import DiTConfig
from cf_transformer.grow import grow_resolution, widen_context
from cf_transformer.indicator import Indicator
from cf_transformer.init import initialise
from cf_transformer.kernels import explain, using
from cf_transformer.optim_groups import no_decay_names
from cf_transformer.presets import (
    CROSS_ATTENTION_PRESETS,
    DIT_PRESETS,
    PRESETS,
    cross_attention_preset,
    dit_preset,
    preset,
)
from cf_transformer.pretrained import from_pretrained, save_pretrained
from cf_transformer.public_dit import load_public_dit, save_public_dit
from cf_transformer.public_files import read_public, split_public
from cf_transformer.public_weights import load_public, save_public
from cf_transformer.stage import Stage
from cf_transformer.td_norm import Clock, TDLayerNorm, TimeLerp, td_rms_norm

__all__ = [
    "CROSS_ATTENTION_PRESETS",
    "DIT_PRESETS",
    "PRESETS",
    "Cascade",
    "Clock",
    "CrossAttentionConfig",
    "CrossAttentionDiMR",
    "DiMR",
    "DiMRConfig",
    "DiT",
    "DiTConfig",
    "Indicator",
    "Stage",
    "StageConfig",
    "TDLayerNorm",
    "TimeLerp",
    "count_macs",
    "count_parameters",
    "cross_attention_preset",
    "dit_preset",
    "explain",
    "from_pretrained",
    "grow_resolution",
    "initialise",
    "load_public",
    "load_public_dit",
    "no_decay_names",
    "preset",
    "read_public",
    "save_pretrained",
    "save_public",
    "save_public_dit",
    "split_public",
    "td_rms_norm",
    "using",
    "widen_context",
]
