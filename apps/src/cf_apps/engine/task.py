"""What a task shows the training loop: its modules, its batches, its losses by name."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cf_apps.engine.optim import spared
from cf_apps.engine.seeds import endless_order


@dataclass(frozen=True)
class Losses:
    """Losses of one batch by name, each with its weight, and statistics that are logged but not optimized.

    terms: name -> (weight, scalar loss). The log shows the loss without its weight.
    stats: name -> scalar; NaN means 'no value in this batch' (an empty bin of t) and is left out of means.
    """

    terms: Mapping[str, tuple[float, Float[Tensor, ""]]]
    stats: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.terms:
            raise ValueError("Losses needs at least one term, as {'flow': (1.0, loss)}")
        if "total" in self.terms:
            raise ValueError("a loss cannot be called 'total'; that is the weighted sum, name it otherwise")

    @property
    def total(self) -> Float[Tensor, ""]:
        """Σ weight · loss: what the gradient is taken of."""
        return torch.stack([weight * loss for weight, loss in self.terms.values()]).sum()

    def scalars(self) -> dict[str, Tensor]:
        """Every loss by name, and 'total'; detached."""
        return {name: loss.detach() for name, (_, loss) in self.terms.items()} | {
            "total": self.total.detach()
        }


@runtime_checkable
class Task(Protocol):
    """Something to train. All of its randomness is a function of the arguments of `batch` and `losses`."""

    @property
    def modules(self) -> nn.ModuleDict:
        """What is trained and saved, on its device. Frozen parts that can be had again stay outside."""
        ...

    @property
    def no_decay(self) -> Collection[str]:
        """Names of modules or parameters spared weight decay, besides 1-D parameters and nn.Embedding.

        'position' spares every parameter with 'position' between the dots of its name.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """All that is needed to build the modules again, as JSON; kept in config.json under 'task'."""
        ...

    def batch(self, first: int, size: int, rows: range | None = None) -> Any:
        """Samples first, ..., first + size - 1 of the endless training stream; the same for the same numbers.

        Step k trains on samples k · batch_size onwards, cut into `accumulate` calls of equal size. Where several
        processes share them, `rows` says which of these `size` samples are this process's: they must be what a call
        without `rows` gives at these places (`own_rows`, `data_draws`). With one process it is not passed. May be
        called on another thread, ahead of time, and must not speak to other ranks.
        """
        ...

    def losses(self, batch: Any, generator: torch.Generator, progress: float) -> Losses:
        """Mean losses over one batch; the generator (on the modules' device) is seeded from (seed, step, part).

        Every term is a mean over the rows of the batch. With several processes the batch is this one's rows, and the
        engine makes means over all of it: `draws_of(generator)` draws what one process would draw for these rows, and
        has what terms need that look across rows (negatives, variances, means over tokens).

        progress: the share of the run that is done, from 0 to 1, for weights that change on the way.
        """
        ...


class ModelTask:
    """What a task says of itself through its `model`, `data`, `source` and `seed`: the part that all tasks share.

    model: has `modules` and `describe()`. data: has a length, and its places are those of `endless_order`. source: what
    the user calls the data, so that evaluation finds it again.
    """

    model: Any
    data: Any
    source: str
    seed: int

    @property
    def modules(self) -> nn.ModuleDict:
        return self.model.modules

    @property
    def no_decay(self) -> Collection[str]:
        return spared(self.modules)

    def describe(self) -> dict[str, Any]:
        return self.model.describe() | {"data": self.source}

    def samples(self, first: int, size: int) -> list[Any]:
        """Which samples of the set those places hold, for people who look for a bad one."""
        return endless_order(len(self.data), first, size, self.seed).tolist()
