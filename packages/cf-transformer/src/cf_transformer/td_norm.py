"""Time-dependent normalisation: the only place where time enters a DiMR.

No state is kept: gamma(t) is computed once per forward, of all norms of a model together, and handed to them.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cf_transformer.kernels import add_td_norm, time_lerps
from cf_transformer.kernels.reference import Leaves


class Clock:
    """A time t (b,) for many TimeLerps: their gamma(t) is computed here, once and together, and read by each.

    Whatever takes a time in this package takes a Clock as well.
    """

    def __init__(self, lerps: Iterable["TimeLerp"], t: Float[Tensor, "b"]) -> None:
        self.t = t
        lerps = list(lerps)
        self._gammas = dict(zip(map(id, lerps), time_lerps([it.leaves() for it in lerps], t), strict=True))

    def gamma(self, lerp: "TimeLerp") -> Float[Tensor, "n b 1 d"]:
        """gamma(t) of one of the lerps it was made for; KeyError for any other."""
        return self._gammas[id(lerp)]


Time = Float[Tensor, "b"] | Clock


class TimeLerp(nn.Module):
    """A set of n per-channel vectors of width d that move with time (DiMR, time-dependent layer norm).

        c = 1 - 2 t,   s = sigmoid((1 + w) c + b),   gamma(t) = s param0 + (1 - s) param1

    `param0` and `param1` both start at `init` (1 for gains, 0 for shifts), w and b at 0, so a fresh model
    does not depend on t; param0 and param1 then receive gradients weighted by s and 1 - s and separate.
    The n sets are stacked, so that one expression serves all norms of a stage.
    """

    def __init__(self, n: int, d: int, init: float) -> None:
        super().__init__()
        self.init = init
        self.param0 = nn.Parameter(torch.full((n, d), init))
        self.param1 = nn.Parameter(torch.full((n, d), init))
        self.w = nn.Parameter(torch.zeros(n, d))
        self.b = nn.Parameter(torch.zeros(n, d))

    def leaves(self) -> Leaves:
        """The four as `time_lerps` takes them."""
        return self.param0, self.param1, self.w, self.b

    def forward(self, t: Time) -> Float[Tensor, "n b 1 d"]:
        """gamma(t) of every set, in fp32 at least, shaped to multiply tokens (b, tokens, d)."""
        if isinstance(t, Clock):
            return t.gamma(self)
        (gamma,) = time_lerps([self.leaves()], t)
        return gamma


def td_rms_norm(x: Float[Tensor, "b n d"], gamma: Float[Tensor, "b 1 d"]) -> Float[Tensor, "b n d"]:
    """gamma(t) x / (rms(x) + 1e-8), rms(x) = |x|_2 / sqrt(d); in gamma's precision, returned in x's."""
    return add_td_norm(x, None, gamma, None, norm="rms")[0]


def add_td_rms_norm(
    x: Float[Tensor, "b n d"], r: Float[Tensor, "b n d"], gamma: Float[Tensor, "b 1 d"]
) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b n d"]]:
    """The norm of the residual sum x + r, and the sum itself."""
    return add_td_norm(x, r, gamma, None, norm="rms")


class TDLayerNorm(nn.Module):
    """Layer normalisation whose gain and shift are both time-dependent: gamma(t) LN(x) + beta(t)."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.gain = TimeLerp(1, d, init=1.0)
        self.shift = TimeLerp(1, d, init=0.0)

    def forward(self, x: Float[Tensor, "b n d"], t: Time) -> Float[Tensor, "b n d"]:
        """Normalise each token over its d channels, in fp32 at least; returned in x's precision."""
        return add_td_norm(x, None, self.gain(t)[0], self.shift(t)[0], norm="layer")[0]
