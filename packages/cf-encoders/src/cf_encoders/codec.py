"""Images in [0, 1] <-> the space the flow lives in. The simplest one is the pixels themselves."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn


@runtime_checkable
class ImageCodec(Protocol):
    """What a task asks of a codec; every one here is also an nn.Module without trainable parameters."""

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(c, h, w) of the latent of an image of this size; ValueError if the codec cannot take the size."""
        ...

    def encode(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        """Images in [0, 1] to latents of roughly unit variance."""
        ...

    def decode(self, latent: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 H W"]:
        """Latents to images, clamped to [0, 1]."""
        ...


class PixelCodec(nn.Module):
    """latent = (2 image - 1) / std: [0, 1] <-> [-1, 1], divided by `std` (of the data, in [-1, 1] units)."""

    def __init__(self, std: float = 1.0) -> None:
        super().__init__()
        if std <= 0:
            raise ValueError(f"std must be > 0, got {std}")
        self.std = std

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        return 3, height, width

    def encode(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 3 H W"]:
        return (2 * images - 1) / self.std

    def decode(self, latent: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 3 H W"]:
        return ((latent * self.std + 1) / 2).clamp(0, 1)


def require_divisible(height: int, width: int, by: int, codec: str) -> None:
    """Raise ValueError unless `by` divides both sides of the image."""
    if height % by or width % by:
        raise ValueError(
            f"{codec} needs height and width divisible by {by}, got {height} x {width}; resize or crop"
        )
