"""Sampling and measuring spread over the ranks.

Whoever only draws samples needs to know nothing of it: every rank runs the same program, draws the same random numbers,
and the long way from x_0 to x_1 is shared out (`by_rows`), so what comes of it is what one process makes, in the same
order. Whoever measures many samples takes them in `own_parts`: a rank reads, draws and measures its rows of each batch
alone, with the random numbers that one process would draw for them, and what the ranks found is merged (`merged`,
`in_order`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from cf_flowcore import Solution
from jaxtyping import Float
from torch import Tensor

from cf_apps.engine.errors import ConfigError, UserError
from cf_apps.engine.ranks.draws import Draws, RankGenerator
from cf_apps.engine.ranks.world import ALONE, World

T = TypeVar("T")
_WORLD: ContextVar[World] = ContextVar("the ranks that samples are spread over", default=ALONE)


@contextmanager
def spread_over(world: World) -> Iterator[None]:
    """Within the block every `carry` is shared out among these ranks, all of which must call it alike."""
    token = _WORLD.set(world)
    try:
        yield
    finally:
        _WORLD.reset(token)


@dataclass(frozen=True)
class Part:
    """This rank's rows of a batch. places: in the whole set. rows: in the batch, which has `total`."""

    places: range
    rows: range
    total: int

    def of(self, generator: torch.Generator) -> torch.Generator:
        """Draws for these rows what `generator` would draw for the batch (`draws_of`). For each part in turn, as the
        generator moves on, and for nothing after them: a rank without a row of the last batch has moved on less."""
        if len(self.rows) == self.total:
            return generator
        return RankGenerator(Draws(generator, self.rows, self.total), self.places.start)


@contextmanager
def own_parts(count: int, size: int) -> Iterator[list[Part]]:
    """This rank's parts of `count` samples, taken in batches of `size`; all of them outside `spread_over`.

    What is drawn within the block is this rank's alone. Collective where the block ends; a UserError of any rank is
    raised on all of them there. Ranks beyond the rows of a batch get no part.
    """
    world, failure = _WORLD.get(), None
    batches = (range(start, min(start + size, count)) for start in range(0, count, size))
    shares = ((batch, world.share(len(batch))) for batch in batches)
    try:
        with spread_over(ALONE):
            yield [Part(batch[own.start : own.stop], own, len(batch)) for batch, own in shares if own]
    except UserError as error:
        failure = error
    for error in world.everyone(failure):
        if error is not None:
            raise error


@runtime_checkable
class Metric(Protocol):
    """One of cf_eval's: knows how to take in what other ranks have seen."""

    def gathered(self, group: Any = None) -> Any:
        """A new one that has seen what all ranks have."""
        ...


M = TypeVar("M", bound=Metric)


def merged(metric: M) -> M:
    """The metric over what all ranks have seen, the same on each. Collective within `spread_over`."""
    world = _WORLD.get()
    return metric if world.size == 1 else metric.gathered(world.group)


def in_order(found: Sequence[tuple[int, T]]) -> list[T]:
    """What all ranks found for each place, in the order of the places, on every rank. Collective."""
    everywhere = [pair for of_rank in _WORLD.get().everyone(list(found)) for pair in of_rank]
    return [value for _, value in sorted(everywhere, key=lambda pair: pair[0])]


def summed(x: Tensor) -> Tensor:
    """The sum over the ranks. Collective within `spread_over`."""
    return _WORLD.get().total(x)


def on_main(act: Callable[[], T]) -> T:
    """What rank 0 gets from act(), which it alone calls; a UserError of its is raised on all. Collective."""
    return _WORLD.get().on_main(act)


def ranks() -> int:
    """Among how many processes the work is spread."""
    return _WORLD.get().size


def by_rows(x_0: Float[Tensor, "b *d"], solved: Callable[[Tensor], Solution]) -> Solution:
    """solved(x_0), for a solver to which a row is the same in whatever batch. Collective within `spread_over`.

    The solution's nfe is that of the rank with the most, `rows` are those of all. Raises the ConfigError of any rank on
    all of them. Fewer rows than ranks are carried by every rank.
    """
    world = _WORLD.get()
    if world.size == 1 or len(x_0) < world.size:
        return solved(x_0)
    own = world.share(len(x_0))
    found: Solution | ConfigError
    try:
        found = _moved(solved(x_0[own.start : own.stop]), torch.device("cpu"))
    except ConfigError as error:
        found = error
    parts: list[Solution] = []
    for part in world.everyone(found):
        if isinstance(part, ConfigError):
            raise part
        parts.append(part)
    whole = replace(parts[0], nfe=max(part.nfe for part in parts), rows=sum(part.rows for part in parts))
    per_sample = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in ("x", "accepted", "rejected", "reached")
        if isinstance(getattr(whole, name), Tensor)
    }
    return _moved(replace(whole, **per_sample), x_0.device)


def _moved(solution: Solution, device: torch.device) -> Solution:
    """The same with its tensors of samples on `device`; t stays on the CPU."""
    tensors: dict[str, Any] = {
        field.name: value.to(device)
        for field in fields(solution)
        if field.name != "t" and isinstance(value := getattr(solution, field.name), Tensor)
    }
    return replace(solution, **tensors)
