"""The one network of the Flow Matching paper's tables: diffusers' U-Net as a function of (x, t)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class UNetSize:
    """Channels at each resolution, from the picture's own downwards, and at which of them attention looks around."""

    channels: tuple[int, ...]
    depth: int
    attention: tuple[bool, ...]
    head_channels: int = 64


class UNet(nn.Module):
    """Predicts whatever it is trained for, in the shape of x."""

    def __init__(self, size: UNetSize, picture_channels: int, side: int) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        down = ["AttnDownBlock2D" if on else "DownBlock2D" for on in size.attention]
        up = ["AttnUpBlock2D" if on else "UpBlock2D" for on in reversed(size.attention)]
        self.net = UNet2DModel(
            sample_size=side,
            in_channels=picture_channels,
            out_channels=picture_channels,
            layers_per_block=size.depth,
            block_out_channels=size.channels,
            down_block_types=tuple(down),
            up_block_types=tuple(up),
            attention_head_dim=size.head_channels,
            norm_num_groups=min(32, size.channels[0] // 2),
        )

    def forward(self, x: Float[Tensor, "b c h w"], t: Float[Tensor, "b"]) -> Float[Tensor, "b c h w"]:
        return self.net(x, 1000 * t).sample  # its sines are made for time steps up to 1000


def parameters(net: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(p.numel() for p in net.parameters())


def seeded_unet(size: UNetSize, picture_channels: int, side: int, seed: int, device: torch.device) -> UNet:
    """The same initial weights for every method with one seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return UNet(size, picture_channels, side).to(device)
