"""Which parameters weight decay must leave alone."""

from torch import nn

from cf_transformer.indicator import Indicator
from cf_transformer.position import LearnedPosition
from cf_transformer.query_key import AxialRoPE
from cf_transformer.td_norm import TimeLerp


def no_decay_names(model: nn.Module) -> set[str]:
    """Names of norm gains, shifts and their w, b, of embeddings, and of every parameter with one axis.

    The public code spares w and b only; decaying gains, biases and embeddings is one of its known slips.
    Names are those of `model.named_parameters()`.
    """
    spared = (TimeLerp, LearnedPosition, Indicator, AxialRoPE)
    names = {name for name, parameter in model.named_parameters() if parameter.ndim <= 1}
    for path, module in model.named_modules():
        if isinstance(module, spared):
            names |= {f"{path}.{name}".lstrip(".") for name, _ in module.named_parameters(recurse=False)}
    return names
