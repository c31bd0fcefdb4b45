"""Sampling spread over the ranks: each carries its rows of every x_0, and all get all rows.

Whoever draws samples needs to know nothing of it. Every rank runs the same program, draws the same random numbers, and
only the long way from x_0 to x_1 is shared out, so what comes of it is what one process makes, in the same order.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, replace
from typing import Any

import torch
from cf_flowcore import Solution
from jaxtyping import Float
from torch import Tensor

from cf_apps.engine.errors import ConfigError
from cf_apps.engine.ranks.world import ALONE, World

_WORLD: ContextVar[World] = ContextVar("the ranks that samples are spread over", default=ALONE)


@contextmanager
def spread_over(world: World) -> Iterator[None]:
    """Within the block every `carry` is shared out among these ranks, all of which must call it alike."""
    token = _WORLD.set(world)
    try:
        yield
    finally:
        _WORLD.reset(token)


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
