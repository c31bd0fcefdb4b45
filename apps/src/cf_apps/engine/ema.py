# pyright: reportPrivateImportUsage=false
# torch offers its fused operations on lists of tensors (torch._foreach_*) under such names only
"""The exponential moving average of the weights: what is sampled from."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cf_apps.engine.optim import trained_parameters
from cf_apps.engine.ranks.shards import local


class Ema:
    """Average of the trained parameters: ema ← d · ema + (1 - d) · weights.

    d = min(decay, (1 + n) / (ramp + n)), where n counts the updates made before. The ramp lets the first
    averages forget the initial weights; ramp = 1 means d = decay from the start.
    """

    def __init__(self, modules: nn.Module, decay: float, ramp: float = 10.0, device: str = "same") -> None:
        """device: where the average is kept: 'same' as the weights (and sharded as they are), or 'cpu'."""
        self.decay, self.ramp, self.updates = decay, ramp, 0
        self._names = list(trained_parameters(modules))
        weights = list(trained_parameters(modules).values())
        self._weights: list[Tensor] = [local(p) for p in weights]
        self._average = [
            p.detach().clone() if device == "same" else p.detach().to(device, copy=True) for p in weights
        ]
        self._held = [local(average) for average in self._average]

    @torch.no_grad()
    def update(self) -> None:
        """Take the present weights into the average, in one call for all of them."""
        decay = min(self.decay, (1 + self.updates) / (self.ramp + self.updates))
        torch._foreach_lerp_(self._held, self._there(self._weights), 1 - decay)
        self.updates += 1

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Within the block the modules hold the average; afterwards their own weights again, bit for bit."""
        with torch.no_grad():
            own = [p.detach().clone() for p in self._weights]
            torch._foreach_copy_(self._weights, self._held)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._weights, own)

    def state(self) -> dict[str, Tensor]:
        """The average by parameter name; the tensors themselves, not copies."""
        return dict(zip(self._names, self._average, strict=True))

    def _there(self, weights: list[Tensor]) -> list[Tensor]:
        """The weights on the average's device."""
        moved = [w.to(a.device, non_blocking=True) for w, a in zip(weights, self._held, strict=True)]
        if any(w.is_cuda and not a.is_cuda for w, a in zip(weights[:1], self._held, strict=False)):
            torch.cuda.current_stream().synchronize()  # the copies to the host must have landed
        return moved
