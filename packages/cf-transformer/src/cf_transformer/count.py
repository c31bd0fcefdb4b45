"""What a model costs: parameters and multiply-accumulates."""

from torch import nn

from cf_transformer.config import DiMRConfig, StageConfig


def count_parameters(module: nn.Module) -> int:
    """Number of parameters; works on the meta device, where a model costs no memory."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(config: DiMRConfig) -> int:
    """Multiply-accumulates of one velocity at b = 1 (DiMR's "Gflops" are these), products only.

    Left out: norms, activations, gains, the heads of the lower stages, and the two products W gamma and
    W beta that a streamed cascade makes once per sample, not per token (0.1 % of the 951M model).
    """
    stages = sum(_stage_macs(config, stage) for stage in config.stages)
    pairs = zip(config.stages, config.stages[1:], strict=False)
    cascades = sum(_cascade_macs(config, low, high) for low, high in pairs)
    top = config.stages[-1]
    head = 9 * top.d_model * config.channels * top.patch**2 * _cells(config, top)
    return stages + cascades + head


def _cells(config: DiMRConfig, stage: StageConfig) -> int:
    rows, columns = config.grid(stage)
    return rows * columns


def _stage_macs(config: DiMRConfig, stage: StageConfig) -> int:
    d, cells = stage.d_model, _cells(config, stage)
    n = cells + (stage is config.stages[0])  # the first stage has the indicator token
    mlp = 3 * d * config.hidden(stage) * n
    attention = (4 * d * d + 2 * d * n) * n  # four projections; logits and weighted sum
    mix = attention if stage.kind == "transformer" else config.kernel_size**2 * d * n
    embed = config.channels * stage.patch**2 * d * cells
    skips = stage.n_blocks // 2 * 2 * d * d * n
    return embed + stage.n_blocks * (mix + mlp) + skips


def _cascade_macs(config: DiMRConfig, low: StageConfig, high: StageConfig) -> int:
    ratio = low.patch // high.patch
    return (low.n_blocks + 1) * low.d_model * ratio**2 * high.d_model * _cells(config, low)
