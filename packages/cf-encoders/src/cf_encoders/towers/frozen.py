"""A pretrained image encoder, frozen, under a head that is trained: the cheapest image side of the contrast.

The features do not change in training, so they can be made once and stored; then no image is read again.
"""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cf_encoders.language_models.fingerprint import fingerprint
from cf_encoders.numerics import widen
from cf_encoders.towers.heads import ProjectionHead
from cf_encoders.towers.preprocess import Preprocess


class FrozenImages(nn.Module, ABC):
    """Images (b, 3, H, W) in [-1, 1], of any size -> features (b, width), float32 (float64 if the network is).

    No gradient, neither to its weights nor to the images; `train()` leaves dropout off.
    """

    def __init__(self, network: nn.Module, preprocess: Preprocess, device: torch.device | str) -> None:
        super().__init__()
        self.network, self.preprocess = network, preprocess
        self.eval().requires_grad_(False).to(device)
        self.width = self(torch.zeros(1, 3, *preprocess.crop, device=device)).shape[1]

    @abstractmethod
    def embed(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """The network's features of preprocessed images."""

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b d"]:
        return widen(self.embed(self.preprocess(images).to(next(self.network.parameters()).dtype)))

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits to keep stored features of different models apart, as for language models."""
        return fingerprint(self.network, type(self).__name__, str(self.preprocess))

    def train(self, mode: bool = True) -> "FrozenImages":
        """Stays in eval mode."""
        return super().train(False)


class FrozenTower(nn.Module):
    """`head(features(images))`: images in [-1, 1] -> z_hat of z_0's shape.

    To train without images, store `features(images)` once, under `frozen.fingerprint`, and call `head` on them. Only
    the head learns: `projection.state_dict()` is all of it that a checkpoint needs.
    """

    def __init__(self, frozen: FrozenImages, latent: tuple[int, int, int], hidden: int = 1024) -> None:
        super().__init__()
        self.frozen, self.latent = frozen, latent
        self.projection = ProjectionHead(frozen.width, hidden, math.prod(latent))

    def features(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b d"]:
        """What can be stored: no gradient, always the same for the same image."""
        return self.frozen(images)

    def head(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b c h w"]:
        return self.projection(features).unflatten(1, self.latent)

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        return self.head(self.features(images))
