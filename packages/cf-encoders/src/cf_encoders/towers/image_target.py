"""What the contrastive loss asks of its image side."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class ImageTarget(Protocol):
    """Images or latents -> z_hat of z_0's shape, for `info_nce` or `sigmoid_loss`. Each one here is an nn.Module.

    Images are in [-1, 1], as the public code has them. Some towers take any size, some the one they were built for;
    these may be given latents instead. Only training needs them.
    """

    @property
    def latent(self) -> tuple[int, int, int]:
        """(c, h, w) of z_0."""
        ...

    def __call__(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k m n"]: ...
