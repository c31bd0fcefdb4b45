"""Many tokens -> one vector: the two ways a tower reads a picture or a caption as a whole."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cf_encoders.layers import CrossBlock


class MeanPool(nn.Module):
    """LN of the mean of the tokens where `mask` is True; of zero where it is nowhere."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b d"]:
        count = mask.sum(dim=1, keepdim=True).clamp(min=1)
        return self.norm((x * mask[..., None]).sum(dim=1) / count)


class AttentionPool(nn.Module):
    """One learned query reads the tokens where `mask` is True, then LN. Without any, it reads all evenly."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, width))
        self.read = CrossBlock(width, heads, hidden, dropout=0.0)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b d"]:
        return self.norm(self.read(self.query.expand(len(x), -1, -1), x, mask)[:, 0])


POOLS: dict[str, Callable[[int, int, int], nn.Module]] = {"attention": AttentionPool, "mean": MeanPool}
