"""A feature space that sees how sharp pictures are, without any weights: for a Fréchet distance, which is no FID.

Of a picture: the log energy of its luma in six bands of the DCT of 8 x 8 blocks, over all blocks, and the mean colours
of its quarters. Blur lowers the high bands and noise raises them, wherever things are. What they are, it does not see.

Energies are pooled over the whole picture: in the empty part of one, noise that nobody sees would count as much as a
blurred edge, and two halves of one set would be as far apart as sharp and slightly blurred pictures.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

BLOCK = 8
BANDS = ((1, 1), (2, 2), (3, 4), (5, 6), (7, 9), (10, 14))  # of u + v, lowest and highest
LUMA = (0.299, 0.587, 0.114)
LEVEL = 1 / 255  # energies below one grey level a coefficient do not count: rounding to bytes makes them
SHARPNESS = (
    f"log energies of {len(BANDS)} bands of the luma's 8 x 8 block DCT, and mean colours of 2 x 2 parts"
)


def sharpness(pictures: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 18"]:
    """6 log energies and 4 x 3 colours. What is over a multiple of 8 pixels on the right and below is left out."""
    height, width = (side // BLOCK * BLOCK for side in pictures.shape[2:])
    if min(height, width) < 2 * BLOCK:
        raise ValueError(f"pictures must be at least 16 x 16, got {tuple(pictures.shape[2:])}")
    x = pictures[..., :height, :width].double() / 255
    energies = torch.log(_band_energies(x).mean((2, 3)) + LEVEL**2)
    return torch.cat([energies, F.adaptive_avg_pool2d(x, 2).flatten(1)], 1)


def _band_energies(x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k m n"]:
    """Mean square of the luma's coefficients in each band of each block."""
    luma = torch.einsum("bchw,c->bhw", x, x.new_tensor(LUMA))
    blocks = rearrange(luma, "b (m p) (n q) -> b m n p q", p=BLOCK, q=BLOCK)
    dct = dct_matrix(BLOCK).to(x)
    squares = (dct @ blocks @ dct.T).square()
    band = _bands()
    return torch.stack([squares[..., band == k].mean(-1) for k in range(len(BANDS))], 1)


def dct_matrix(n: int) -> Float[Tensor, "{n} {n}"]:
    """The orthonormal DCT-II: row u is sqrt((1 or 2) / n) cos(pi u (x + 1/2) / n)."""
    u, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64),) * 2, indexing="ij")
    rows = math.sqrt(2 / n) * torch.cos(math.pi * u * (x + 0.5) / n)
    rows[0] /= math.sqrt(2)
    return rows


def _bands() -> Int64[Tensor, "8 8"]:
    """The band of each coefficient (u, v); -1 for the flat one."""
    u, v = torch.meshgrid(*(torch.arange(BLOCK),) * 2, indexing="ij")
    lowest = torch.tensor([low for low, _ in BANDS])
    return torch.bucketize(u + v, lowest, right=True) - 1
