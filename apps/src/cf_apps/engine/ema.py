# pyright: reportPrivateImportUsage=false
# torch offers its fused operations on lists of tensors (torch._foreach_*) under such names only
"""The exponential moving average of the weights: what is sampled from."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cf_apps.engine.optim import trained_parameters


class Ema:
    """Average of the trained parameters: ema ← d · ema + (1 - d) · weights.

    d = min(decay, (1 + n) / (ramp + n)), where n counts the updates made before. The ramp lets the first
    averages forget the initial weights; ramp = 1 means d = decay from the start.
    """

    def __init__(self, modules: nn.Module, decay: float, ramp: float = 10.0) -> None:
        self.decay, self.ramp, self.updates = decay, ramp, 0
        self._names = list(trained_parameters(modules))
        self._weights: list[Tensor] = list(trained_parameters(modules).values())
        self._average = [p.detach().clone() for p in self._weights]

    @torch.no_grad()
    def update(self) -> None:
        """Take the present weights into the average, in one call for all of them."""
        decay = min(self.decay, (1 + self.updates) / (self.ramp + self.updates))
        torch._foreach_lerp_(self._average, self._weights, 1 - decay)
        self.updates += 1

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Within the block the modules hold the average; afterwards their own weights again, bit for bit."""
        with torch.no_grad():
            own = [p.detach().clone() for p in self._weights]
            torch._foreach_copy_(self._weights, self._average)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._weights, own)

    def state(self) -> dict[str, Tensor]:
        """The average by parameter name; the tensors themselves, not copies."""
        return dict(zip(self._names, self._average, strict=True))
