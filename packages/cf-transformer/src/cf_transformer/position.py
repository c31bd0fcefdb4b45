"""From pixels to tokens and back: patches, positions and the pixel-shuffle order (DiMR)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


class PatchEmbed(nn.Module):
    """Cut (b, c, h, w) into patch x patch cells, project each to d channels, add its learned position if it has one."""

    def __init__(
        self, channels: int, d: int, patch: int, grid: tuple[int, int], positions: bool = True
    ) -> None:
        super().__init__()
        self.patch = patch
        self.project = nn.Conv2d(channels, d, kernel_size=patch, stride=patch)
        self.position = LearnedPosition(grid[0] * grid[1], d) if positions else nn.Identity()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Cells in row-major order."""
        # kernel = stride, so the convolution is one product per cell; written so, tokens are contiguous in d
        cells = rearrange(x, "b c (y p) (x q) -> b (y x) (c p q)", p=self.patch, q=self.patch)
        return self.position(F.linear(cells, self.project.weight.flatten(1), self.project.bias))


class LearnedPosition(nn.Module):
    """A learned absolute position table, row = y * columns + x."""

    def __init__(self, n: int, d: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(n, d))

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """x + table, in the table's precision."""
        return x + self.table


def pixel_shuffle(x: Float[Tensor, "b n rrd"], r: int, grid: tuple[int, int]) -> Float[Tensor, "b rrn d"]:
    """Open every cell into r x r cells. Channel order: (row in cell, column in cell, channel).

    x has r * r * d channels on a `grid` of (rows, columns); the result has d channels on r times that grid.
    """
    rows, columns = grid
    return rearrange(x, "b (y x) (p q d) -> b (y p x q) d", y=rows, x=columns, p=r, q=r)
