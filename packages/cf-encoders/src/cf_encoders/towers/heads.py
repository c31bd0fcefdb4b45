"""The last layers of a tower: features of an image or a caption -> the numbers of z_0."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ProjectionHead(nn.Module):
    """Linear, GELU, LN, Linear: the public code's head, which at 256 px is (1024, 4096, 4096)."""

    def __init__(self, features: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc1, self.norm = nn.Linear(features, hidden), nn.LayerNorm(hidden)
        self.fc2 = nn.Linear(hidden, out)

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b e"]:
        return self.fc2(self.norm(F.gelu(self.fc1(x))))
