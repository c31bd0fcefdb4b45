"""How a fresh model starts (DiMR)."""

import torch
from torch import nn

from cf_transformer.config import InitKind
from cf_transformer.indicator import Indicator
from cf_transformer.position import LearnedPosition
from cf_transformer.query_key import AxialRoPE, QKNorm
from cf_transformer.td_norm import TimeLerp

STD = 0.02
SCALED_GAIN = STD * 1024**0.5  # of a linear layer in the paper's width
SCALED_STD = 0.5  # of positions and indicator, beside features of about size 1


@torch.no_grad()
def initialise(model: nn.Module, generator: torch.Generator | None = None, kind: InitKind = "paper") -> None:
    """Draw every parameter anew, in module order; the same generator state gives the same model.

    Linear weights, position tables and indicator vectors: normal(0, 0.02) truncated at +-2; their biases 0.
    `scaled` draws linear weights with 0.64 / sqrt(fan in) (0.02 at the paper's 1024 inputs), positions and indicator
    with 0.5. The gain of a linear layer at initialisation then does not depend on its width.
    Convolutions: PyTorch's default, uniform within 1 / sqrt(fan in). Norms: gain 1, shift 0, w = b = 0.
    """
    embedding_std = STD if kind == "paper" else SCALED_STD
    for module in model.modules():
        match module:
            case nn.Linear():
                std = STD if kind == "paper" else SCALED_GAIN * module.in_features**-0.5
                nn.init.trunc_normal_(module.weight, std=std, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            case nn.Conv2d():
                bound = module.weight[0].numel() ** -0.5
                nn.init.uniform_(module.weight, -bound, bound, generator=generator)
                if module.bias is not None:
                    nn.init.uniform_(module.bias, -bound, bound, generator=generator)
            case LearnedPosition():
                nn.init.trunc_normal_(module.table, std=embedding_std, generator=generator)
            case Indicator(kind="paper"):
                nn.init.trunc_normal_(module.conditional, std=embedding_std, generator=generator)
                nn.init.trunc_normal_(module.unconditional, std=embedding_std, generator=generator)
            case Indicator(kind="released"):
                module.conditional.fill_(1.0)
                module.unconditional.fill_(-1.0)
            case QKNorm() | AxialRoPE():
                module.reset()
            case TimeLerp():
                module.param0.fill_(module.init)
                module.param1.fill_(module.init)
                module.w.zero_()
                module.b.zero_()
            case _:
                pass
