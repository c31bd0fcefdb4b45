"""Time-dependent normalisation: the only place where time enters a DiMR.

No state is kept: gamma(t) is computed once per forward for a whole set of norms and handed to them.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

RMS_EPS = 1e-8
LAYER_NORM_EPS = 1e-5


class TimeLerp(nn.Module):
    """A set of n per-channel vectors of width d that move with time (DiMR, time-dependent layer norm).

        c = 1 - 2 t,   s = sigmoid((1 + w) c + b),   gamma(t) = s param0 + (1 - s) param1

    `param0` and `param1` both start at `init` (1 for gains, 0 for shifts), w and b at 0, so a fresh model
    does not depend on t; param0 and param1 then receive gradients weighted by s and 1 - s and separate.
    The n sets are stacked, so that one fused expression serves all norms of a stage.
    """

    def __init__(self, n: int, d: int, init: float) -> None:
        super().__init__()
        self.init = init
        self.param0 = nn.Parameter(torch.full((n, d), init))
        self.param1 = nn.Parameter(torch.full((n, d), init))
        self.w = nn.Parameter(torch.zeros(n, d))
        self.b = nn.Parameter(torch.zeros(n, d))

    def forward(self, t: Float[Tensor, "b"]) -> Float[Tensor, "n b 1 d"]:
        """gamma(t) of every set, in fp32 at least, shaped to multiply tokens (b, tokens, d)."""
        dtype = torch.promote_types(self.w.dtype, torch.float32)
        leaves = (self.param0, self.param1, self.w, self.b)
        param0, param1, w, b = (leaf.to(dtype)[:, None, None] for leaf in leaves)
        c = 1 - 2 * t.to(dtype)[:, None, None]
        return torch.lerp(param1, param0, torch.sigmoid((1 + w) * c + b))


def td_rms_norm(x: Float[Tensor, "b n d"], gamma: Float[Tensor, "b 1 d"]) -> Float[Tensor, "b n d"]:
    """gamma(t) x / (rms(x) + 1e-8), rms(x) = |x|_2 / sqrt(d); in gamma's precision, returned in x's."""
    wide = x.to(gamma.dtype)
    rms = torch.linalg.vector_norm(wide, dim=-1, keepdim=True) * x.shape[-1] ** -0.5
    return (wide * (rms + RMS_EPS).reciprocal() * gamma).to(x.dtype)


class TDLayerNorm(nn.Module):
    """Layer normalisation whose gain and shift are both time-dependent: gamma(t) LN(x) + beta(t)."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.gain = TimeLerp(1, d, init=1.0)
        self.shift = TimeLerp(1, d, init=0.0)

    def forward(self, x: Float[Tensor, "b n d"], t: Float[Tensor, "b"]) -> Float[Tensor, "b n d"]:
        """Normalise each token over its d channels, in fp32 at least; returned in x's precision."""
        gamma, beta = self.gain(t)[0], self.shift(t)[0]
        normed = F.layer_norm(x.to(gamma.dtype), x.shape[-1:], eps=LAYER_NORM_EPS)
        return torch.addcmul(beta, normed, gamma).to(x.dtype)
