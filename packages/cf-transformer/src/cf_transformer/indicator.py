"""The conditioning indicator 1_c as one extra token (CrossFlow 4.3)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cf_transformer.config import IndicatorKind


class Indicator(nn.Module):
    """g^c or g^uc, concatenated to the tokens along the sequence.

    `paper`: both are learned vectors of width d. `released`: both are learned scalars, +1 and -1 at first,
    broadcast over the d channels (the public code).
    """

    def __init__(self, d: int, kind: IndicatorKind) -> None:
        super().__init__()
        self.kind: IndicatorKind = kind
        self.d = d
        width = {"paper": d, "released": 1}[kind]
        self.conditional = nn.Parameter(torch.empty(width))
        self.unconditional = nn.Parameter(torch.empty(width))

    def forward(self, is_null: Bool[Tensor, "b"]) -> Float[Tensor, "b 1 d"]:
        """g^uc where `is_null`, else g^c."""
        token = torch.where(is_null[:, None], self.unconditional, self.conditional)
        return token.expand(-1, self.d)[:, None]
