"""How a fresh model starts (specs 2.5)."""

import torch
from torch import nn

from cf_transformer.indicator import Indicator
from cf_transformer.position import LearnedPosition
from cf_transformer.td_norm import TimeLerp

STD = 0.02


@torch.no_grad()
def initialise(model: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw every parameter anew, in module order; the same generator state gives the same model.

    Linear weights, position tables and indicator vectors: normal(0, 0.02) truncated at +-2; their biases 0.
    Convolutions: PyTorch's default, uniform within 1 / sqrt(fan in). Norms: gain 1, shift 0, w = b = 0.
    """
    for module in model.modules():
        match module:
            case nn.Linear():
                nn.init.trunc_normal_(module.weight, std=STD, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            case nn.Conv2d():
                bound = module.weight[0].numel() ** -0.5
                nn.init.uniform_(module.weight, -bound, bound, generator=generator)
                if module.bias is not None:
                    nn.init.uniform_(module.bias, -bound, bound, generator=generator)
            case LearnedPosition():
                nn.init.trunc_normal_(module.table, std=STD, generator=generator)
            case Indicator(kind="paper"):
                nn.init.trunc_normal_(module.conditional, std=STD, generator=generator)
                nn.init.trunc_normal_(module.unconditional, std=STD, generator=generator)
            case Indicator(kind="released"):
                module.conditional.fill_(1.0)
                module.unconditional.fill_(-1.0)
            case TimeLerp():
                module.param0.fill_(module.init)
                module.param1.fill_(module.init)
                module.w.zero_()
                module.b.zero_()
            case _:
                pass
