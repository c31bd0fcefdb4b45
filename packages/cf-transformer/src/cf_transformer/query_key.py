"""What is done to queries and keys before they meet: QK-norm, and axial RoPE on top of it (DiMR)."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from cf_transformer.kernels import qk_norm_rope
from cf_transformer.precision import at_least_fp32

FIRST_LOGIT, LARGEST_LOGIT = 10.0, 100.0  # of a query and a key in the same direction: at first, and at most
SLOWEST, FASTEST = math.pi, 5 * math.pi  # radians between the grid's centre and its edge, at first


class QKNorm(nn.Module):
    """q and k keep their direction only: the logit of two is exp(s) cos(angle between them), s learned per head.

    Written as a gain on both, exp(s / 2) / e^(1/4) after RMS normalisation, so that attention may go on dividing its
    logits by sqrt(e). s starts at ln 10 and counts as ln 100 where it is larger.
    """

    def __init__(self, n_heads: int, e: int) -> None:
        super().__init__()
        self.e = e
        self.log_scale = nn.Parameter(torch.empty(n_heads))
        self.reset()

    def reset(self) -> None:
        """Back to the start."""
        nn.init.constant_(self.log_scale, math.log(FIRST_LOGIT))

    def gain(self) -> Float[Tensor, "2 k"]:
        """The gain of every head of q and, the same, of k; in fp32 at least."""
        s = at_least_fp32(self.log_scale).clamp(max=math.log(LARGEST_LOGIT))
        return torch.exp(s / 2 - math.log(self.e) / 4).expand(2, -1)


class AxialRoPE(nn.Module):
    """Each pair of channels (j, j + e/2) turns by a learned frequency times the token's place on the grid.

    Half of the pairs follow the row, half the column; places are the cells' centres in [-1, 1]. Frequencies are the
    same for every head and start log-spaced from pi to 5 pi. Tokens before the grid's, the indicator, do not turn.
    """

    def __init__(self, e: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.empty(2, e // 4))  # of rows, of columns
        self.grid = grid
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Back to the start."""
        pairs = self.frequencies.shape[1]
        self.frequencies.copy_(torch.logspace(math.log10(SLOWEST), math.log10(FASTEST), pairs).expand(2, -1))

    def forward(self, n: int) -> tuple[Float[Tensor, "n half"], Float[Tensor, "n half"]]:
        """Cosine and sine of every angle, in fp32 at least; the first n - rows * columns tokens have angle 0."""
        frequencies = at_least_fp32(self.frequencies)
        centres = cell_centres(self.grid, frequencies.device).to(frequencies.dtype)
        turns = rearrange(centres[:, :, None] * frequencies, "n two j -> n (two j)")
        angles = F.pad(turns, (0, 0, n - len(centres), 0))
        return angles.cos(), angles.sin()


class QueryKey(nn.Module):
    """QK-norm of packed q, k, v, then the rotation of AxialRoPE where a `grid` is given; v passes through."""

    def __init__(self, n_heads: int, e: int, grid: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.norm = QKNorm(n_heads, e)
        self.rope = None if grid is None else AxialRoPE(e, grid)

    def forward(self, qkv: Float[Tensor, "b n 3 k e"]) -> Float[Tensor, "b n 3 k e"]:
        """Same packing, same precision."""
        gain = self.norm.gain()
        cos, sin = self.rope(qkv.shape[1]) if self.rope is not None else unturned(qkv, gain)
        return qk_norm_rope(qkv, cos, sin, gain)


def unturned(qkv: Tensor, like: Tensor) -> tuple[Float[Tensor, "n half"], Float[Tensor, "n half"]]:
    """The rotation that does nothing."""
    zero = like.new_zeros(qkv.shape[1], qkv.shape[-1] // 2)
    return zero + 1.0, zero


def cell_centres(grid: tuple[int, int], device: torch.device | None = None) -> Float[Tensor, "n 2"]:
    """(y, x) of every cell of (rows, columns), row-major, the grid's edges being -1 and 1."""
    y, x = ((torch.arange(cells, dtype=torch.float32, device=device) + 0.5) / cells * 2 - 1 for cells in grid)
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).flatten(0, 1)
