"""A codec without weights: the orthonormal DCT of each p x p patch after an orthonormal rotation of colour.

Components are ordered by their spread over photographs. Keeping k of the 3 p^2 drops the finest detail,
chroma before luma; keeping all is exactly invertible.
"""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from cf_encoders.codec import require_divisible, require_float

COLOURS = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (-1.0, 2.0, -1.0))  # grey, red - blue, green - magenta

# Standard deviations over 76 COCO photographs in [-1, 1], per pixel of patch side, one number per colour: of
# the flat component, and of frequency 1; above, it falls as 1 / (u + v). Within 40 % for patches 2 to 8.
FLAT_STD = (0.85, 0.27, 0.12)
WAVE_STD = (0.14, 0.037, 0.021)


class PatchDCTCodec(nn.Module):
    """Images (b, 3, H, W) in [0, 1] <-> latents (b, keep, H / patch, W / patch).

    latent_i = (<component_i, 2 patch - 1> - mean_i) / std_i, widest spread first. `mean` and `std` are
    constants of the codec; `PatchDCTCodec.fitted` measures them, so that latents have mean 0 and variance 1.
    """

    components: Float[Tensor, "keep d"]
    mean: Float[Tensor, "keep 1 1"]
    std: Float[Tensor, "keep 1 1"]

    def __init__(
        self,
        patch: int = 4,
        keep: int = 24,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ) -> None:
        """`mean` and `std`: one number per kept component; by default 0 and the spread over photographs."""
        super().__init__()
        if patch < 1 or not 1 <= keep <= 3 * patch**2:
            raise ValueError(f"keep must be in [1, 3 patch^2 = {3 * patch**2}], got {keep}, patch {patch}")
        spread = natural_std(patch)
        order = spread.argsort(descending=True, stable=True)[:keep]
        mean = (0.0,) * keep if mean is None else mean
        std = tuple(spread[order].tolist()) if std is None else std
        if len(mean) != keep or len(std) != keep or min(std) <= 0:
            raise ValueError(f"mean and std need keep={keep} numbers, std > 0; got {len(mean)}, {len(std)}")
        self.patch = patch
        self.register_buffer("components", dct_components(patch)[order].float(), persistent=False)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    @classmethod
    def fitted(
        cls,
        images: Float[Tensor, "b 3 H W"],
        patch: int = 4,
        keep: int = 24,
        *,
        whitening: float = 1.0,
        floor: float = 0.02,
    ) -> "PatchDCTCodec":
        """A codec with the `mean` of these images and a `std` that makes the latents' mean square 1.

        std_i goes with (the spread of component i)^whitening: 1 gives each component variance 1, 0 keeps their
        proportions in the picture. Between, detail neither drowns in a flow's noise nor outweighs colour and
        place. A spread below `floor` counts as `floor`: it would blow up noise.
        """
        if not 0.0 <= whitening <= 1.0:
            raise ValueError(f"whitening must be in [0, 1], got {whitening}")
        raw = cls(patch, keep, std=(1.0,) * keep).encode(images).double()
        spread = raw.std(dim=(0, 2, 3)).clamp_min(floor)
        std = spread**whitening
        std = std * (spread / std).square().mean().sqrt()
        return cls(patch, keep, tuple(raw.mean(dim=(0, 2, 3)).tolist()), tuple(std.tolist()))

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        require_divisible(height, width, self.patch, f"PatchDCTCodec(patch={self.patch})")
        return len(self.components), height // self.patch, width // self.patch

    def encode(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        require_float(images, "PatchDCTCodec")
        self.latent_shape(images.shape[2], images.shape[3])
        patches = rearrange(2 * images - 1, "b c (h p) (w q) -> b h w (c p q)", p=self.patch, q=self.patch)
        coefficients = rearrange(patches @ self.components.T, "b h w k -> b k h w")
        return (coefficients - self.mean) / self.std

    def decode(self, latent: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 H W"]:
        coefficients = rearrange(latent * self.std + self.mean, "b k h w -> b h w k")
        patches = coefficients @ self.components  # orthonormal rows: the transpose is the inverse
        images = rearrange(patches, "b h w (c p q) -> b c (h p) (w q)", c=3, p=self.patch, q=self.patch)
        return ((images + 1) / 2).clamp(0, 1)


def natural_std(patch: int) -> Float[Tensor, "n"]:
    """Expected std over photographs of all n = 3 p^2 components, in the order (colour u v)."""
    u, v = torch.meshgrid(torch.arange(patch), torch.arange(patch), indexing="ij")
    frequency = (u + v).double()
    wave = torch.tensor(WAVE_STD)[:, None, None] / frequency.clamp_min(1)
    flat = torch.tensor(FLAT_STD)[:, None, None].double()
    return patch * torch.where(frequency == 0, flat, wave).flatten()


def dct_components(patch: int) -> Float[Tensor, "n d"]:
    """All n = 3 p^2 components as orthonormal rows over (c p q), in the order (colour u v), in float64."""
    colours = torch.tensor(COLOURS, dtype=torch.float64)
    colours = colours / colours.norm(dim=1, keepdim=True)
    u, x = torch.meshgrid(torch.arange(patch), torch.arange(patch), indexing="ij")
    dct = math.sqrt(2 / patch) * torch.cos(math.pi * (x + 0.5).double() * u / patch)  # DCT-II
    dct[0] /= math.sqrt(2)
    return torch.einsum("gc,up,vq->guvcpq", colours, dct, dct).reshape(3 * patch**2, 3 * patch**2)
