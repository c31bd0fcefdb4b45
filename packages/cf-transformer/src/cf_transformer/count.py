"""What a model costs: parameters and multiply-accumulates."""

from torch import nn

from cf_transformer.config import DiMRConfig, StageConfig
from cf_transformer.cross_attention_dimr import CrossAttentionConfig
from cf_transformer.dit import TIME_FEATURES
from cf_transformer.dit_config import DiTConfig

CLIP_TOKENS = 77


def count_parameters(module: nn.Module) -> int:
    """Number of parameters; works on the meta device, where a model costs no memory."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(
    config: DiMRConfig | DiTConfig | CrossAttentionConfig, *, context_length: int = CLIP_TOKENS
) -> int:
    """Multiply-accumulates of one velocity at b = 1 (DiMR's "Gflops" are these), products only.

    `context_length` is the number of text tokens, which only a CrossAttentionConfig's model has.

    Left out: norms, activations, gains, the heads of the lower stages, and the two products W gamma and
    W beta that a streamed cascade makes once per sample, not per token (0.1 % of the 951M model).
    A DiT's adaLN is also made once per sample, but counted: it is a third of the parameters.
    """
    match config:
        case DiTConfig():
            return _dit_macs(config)
        case CrossAttentionConfig():
            return _dimr_macs(config.dimr) + _cross_attention_macs(config, context_length)
        case DiMRConfig():
            return _dimr_macs(config)


def _dimr_macs(config: DiMRConfig) -> int:
    stages = sum(_stage_macs(config, stage) for stage in config.stages)
    pairs = zip(config.stages, config.stages[1:], strict=False)
    cascades = sum(_cascade_macs(config, low, high) for low, high in pairs)
    top = config.stages[-1]
    head = 9 * top.d_model * config.channels * top.patch**2 * _cells(config, top)
    return stages + cascades + head


def _cells(config: DiMRConfig, stage: StageConfig) -> int:
    rows, columns = config.grid(stage)
    return rows * columns


def _tokens(config: DiMRConfig, stage: StageConfig) -> int:
    return _cells(config, stage) + (stage is config.stages[0])  # the first stage has the indicator token


def _stage_macs(config: DiMRConfig, stage: StageConfig) -> int:
    d, n = stage.d_model, _tokens(config, stage)
    mlp = 3 * d * config.hidden(stage) * n
    attention = (4 * d * d + 2 * d * n) * n  # four projections; logits and weighted sum
    mix = attention if stage.kind == "transformer" else config.kernel_size**2 * d * n
    embed = config.channels * stage.patch**2 * d * _cells(config, stage)
    skips = stage.n_blocks // 2 * 2 * d * d * n
    return embed + stage.n_blocks * (mix + mlp) + skips


def _cascade_macs(config: DiMRConfig, low: StageConfig, high: StageConfig) -> int:
    ratio = low.patch // high.patch
    return (low.n_blocks + 1) * low.d_model * ratio**2 * high.d_model * _cells(config, low)


def _dit_macs(config: DiTConfig) -> int:
    d, n = config.d_model, config.grid[0] * config.grid[1]
    pixels = config.channels * config.patch**2
    attention = (4 * d * d + 2 * d * n) * n
    mlp = 2 * d * config.hidden * n
    block = attention + mlp + 6 * d * d
    time = TIME_FEATURES * d + d * d
    embed, head = pixels * d * n, pixels * d * n + 2 * d * d
    return embed + time + config.n_blocks * block + head


def _cross_attention_macs(config: CrossAttentionConfig, length: int) -> int:
    total = 0
    for stage in config.dimr.stages:
        if stage.kind == "transformer":
            d, n = stage.d_model, _tokens(config.dimr, stage)
            queries_and_output, keys_and_values = 2 * d * d * n, 2 * config.context_width * d * length
            total += stage.n_blocks * (queries_and_output + keys_and_values + 2 * d * n * length)
    return total
