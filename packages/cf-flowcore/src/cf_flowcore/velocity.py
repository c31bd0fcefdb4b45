"""The one border of this package: a velocity field is any callable v(x, t)."""

from collections.abc import Callable

from jaxtyping import Bool, Float
from torch import Tensor

Velocity = Callable[[Float[Tensor, "b *d"], Float[Tensor, "b"]], Float[Tensor, "b *d"]]
"""v(x, t): the state and its time, one time per sample, to dx/dt."""

IndicatorVelocity = Callable[
    [Float[Tensor, "b *d"], Float[Tensor, "b"], Bool[Tensor, "b"]], Float[Tensor, "b *d"]
]
"""v(x, t, is_null): CrossFlow section 4.3, v_theta(z_t, 1_c) with is_null = (1_c == 0)."""
