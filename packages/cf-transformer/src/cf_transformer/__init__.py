"""The DiMR multi-resolution velocity network with time-dependent normalisation."""

from cf_transformer.cascade import Cascade
from cf_transformer.config import DiMRConfig, StageConfig
from cf_transformer.count import count_macs, count_parameters
from cf_transformer.dimr import DiMR
from cf_transformer.indicator import Indicator
from cf_transformer.init import initialise
from cf_transformer.optim_groups import no_decay_names
from cf_transformer.presets import PRESETS, preset
from cf_transformer.stage import Stage
from cf_transformer.td_norm import TDLayerNorm, TimeLerp, td_rms_norm

__all__ = [
    "PRESETS",
    "Cascade",
    "DiMR",
    "DiMRConfig",
    "Indicator",
    "Stage",
    "StageConfig",
    "TDLayerNorm",
    "TimeLerp",
    "count_macs",
    "count_parameters",
    "initialise",
    "no_decay_names",
    "preset",
    "td_rms_norm",
]
