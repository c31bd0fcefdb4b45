"""From features to a velocity (DiMR)."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from cf_transformer.td_norm import TDLayerNorm, Time


class VelocityHead(nn.Module):
    """TD-LN, then a 3x3 convolution to c channels at the stage's own grid.

    The last stage must reach the full resolution: where its patch p is not 1, each cell predicts p x p
    pixels, opened by `pixel_shuffle` in (row, column, channel) order.
    """

    def __init__(self, channels: int, d: int, grid: tuple[int, int], upscale: int) -> None:
        super().__init__()
        self.grid, self.upscale = grid, upscale
        self.norm = TDLayerNorm(d)
        self.conv = nn.Conv2d(d, upscale * upscale * channels, kernel_size=3, padding=1)

    def forward(self, x: Float[Tensor, "b n d"], t: Time) -> Float[Tensor, "b c h w"]:
        """The velocity on `upscale` times the stage's grid."""
        image = rearrange(self.norm(x, t), "b (h w) d -> b d h w", h=self.grid[0])
        return rearrange(self.conv(image), "b (p q c) h w -> b c (h p) (w q)", p=self.upscale, q=self.upscale)

    def zero(self) -> None:
        """Start from the velocity 0."""
        nn.init.zeros_(self.conv.weight)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)
