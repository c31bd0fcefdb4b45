"""Images in [0, 1] <-> the space the flow lives in. The simplest one is the pixels themselves."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from cf_encoders.gaussian import DiagonalGaussian

ROUNDING = 1e-3  # how far over [0, 1] a picture may be: a resize in float16 is, one in [-1, 1] is not


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


@runtime_checkable
class PosteriorCodec(ImageCodec, Protocol):
    """A codec whose encoder is variational: `encode` gives the mean, and a trainer may draw x_1 instead."""

    def posterior(self, images: Float[Tensor, "b 3 H W"]) -> DiagonalGaussian:
        """q(x_1 | image), in the units of `encode` and `decode`."""
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
        require_float(images, "PixelCodec")
        return (2 * images - 1) / self.std

    def decode(self, latent: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 3 H W"]:
        return ((latent * self.std + 1) / 2).clamp(0, 1)


def require_divisible(height: int, width: int, by: int, codec: str) -> None:
    """Raise ValueError unless `by` divides both sides of the image."""
    if height % by or width % by:
        raise ValueError(
            f"{codec} needs height and width divisible by {by}, got {height} x {width}; resize or crop"
        )


def require_float(images: Shaped[Tensor, "b c H W"], codec: str) -> None:
    """Raise ValueError for whole numbers: 2 image - 1 would wrap around in uint8."""
    if not images.is_floating_point():
        raise ValueError(f"{codec} takes floats in [0, 1], got {images.dtype}; give images.float() / 255")


def require_unit_range(images: Shaped[Tensor, "b c H W"], codec: str) -> None:
    """Raise ValueError unless the images are floats in [0, 1].

    A network answers to images in [-1, 1] or [0, 255] too, and only the pictures look wrong. Costs one pass over
    the pixels, and on a GPU the wait for its result: nothing beside a network.
    """
    require_float(images, codec)
    if images.numel() == 0:
        return
    low, high = (bound.item() for bound in images.detach().aminmax())
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # so that nan is refused too
        raise ValueError(
            f"{codec} takes images in [0, 1], got [{low:.4g}, {high:.4g}]; rescale, or clamp what a resize overshot"
        )
