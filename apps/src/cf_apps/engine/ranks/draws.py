"""A rank's rows of a batch: their random numbers, as one process would draw them, and what they need of other rows.

Every rank draws for the whole batch from one generator and keeps its own rows, so that one process and a thousand train
on the same numbers. A task is handed a `torch.Generator` as ever. With one process that is all there is to it; with
several it is a `RankGenerator`, and `draws_of` finds the whole batch behind it:

    draws = draws_of(generator)
    x_0 = draws.sample(posterior)              # as one process would have drawn these rows
    eps = torch.randn(..., generator=generator)   # this rank's own numbers: other ones than one process would draw
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from cf_encoders import DiagonalGaussian
from cf_encoders.gather import WholeBatch
from cf_flowcore import draw_null, null_targets
from cf_flowcore.null_targets import random_cycle
from cf_flowcore.path import expand_like
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cf_apps.engine.ranks.world import Group, World
from cf_apps.engine.seeds import mixed_seed, step_generator


class RankGenerator(torch.Generator):
    """This rank's own random numbers, and behind them those of the whole batch, which `draws_of` finds.

    Given to a function that knows nothing of ranks it draws numbers that no other rank draws.
    """

    draws: "Draws"

    def __new__(cls, draws: "Draws", *numbers: int) -> "RankGenerator":
        made = super().__new__(cls, draws.generator.device)  # pyright: ignore[reportCallIssue]
        made.draws = draws
        made.manual_seed(mixed_seed(*numbers))
        return made

    def __init__(self, draws: "Draws", *numbers: int) -> None:
        """draws: of the whole batch. numbers: what the rank's own numbers are seeded from."""


@dataclass(frozen=True)
class Draws:
    """The rows that a rank holds of a batch.

    generator: of the whole batch, in the same state on every rank. rows, total: which of how many rows are this rank's;
    None where it holds all of them. world: needed by what gathers or sums over the ranks.

    Methods that say `collective` must be called by every rank.
    """

    generator: torch.Generator
    rows: range | None = None
    total: int = 0
    world: World | None = None

    @property
    def is_part(self) -> bool:
        """Whether other ranks hold further rows."""
        return self.rows is not None

    # ------------------------------------------------------------------------------------------- random numbers

    def normal(self, like: Float[Tensor, "b *d"]) -> Float[Tensor, "b *d"]:
        """Standard normal numbers in the shape of `like`, a tensor of one row a sample."""
        drawn = torch.randn(
            self._whole(like.shape), generator=self.generator, device=self.generator.device, dtype=like.dtype
        )
        return self._mine(drawn).to(like.device)

    def sample(self, posterior: DiagonalGaussian, temperature: float = 1.0) -> Float[Tensor, "b *d"]:
        """z ~ q, as `posterior.sample(generator, temperature)` draws it."""
        if self.rows is None:
            return posterior.sample(self.generator, temperature)
        return posterior.mean + temperature * posterior.std * self.normal(posterior.mean)

    def uniform(self, b: int, *shape: int, dtype: torch.dtype | None = None) -> Float[Tensor, "b *d"]:
        """Numbers in [0, 1), on the generator's device, one row a sample."""
        size = self._whole(torch.Size((b, *shape)))
        return self._mine(
            torch.rand(size, generator=self.generator, device=self.generator.device, dtype=dtype)
        )

    def integers(self, low: int, high: int, b: int, *shape: int) -> Int[Tensor, "b *d"]:
        """Whole numbers in [low, high), on the generator's device, one row a sample."""
        size = self._whole(torch.Size((b, *shape)))
        return self._mine(
            torch.randint(low, high, size, generator=self.generator, device=self.generator.device)
        )

    def number(self, high: int) -> int:
        """One whole number in [0, high) for the batch, the same on every rank."""
        drawn = torch.randint(high, (), generator=self.generator, device=self.generator.device)
        return int(drawn)

    def is_null(self, rate: float, like: Float[Tensor, "b *d"]) -> Bool[Tensor, "b"]:
        """Which samples train the indicator (CrossFlow sec. 4.3)."""
        return self._mine(draw_null(self._count(like), rate, generator=self.generator, device=like.device))

    def times(self, law: Callable[..., Tensor], like: Float[Tensor, "b *d"]) -> Float[Tensor, "b"]:
        """t of a law of cf_flowcore's; a stratified one is stratified over the whole batch."""
        return self._mine(law(self._count(like), generator=self.generator, device=like.device))

    def null_targets(self, x_1: Float[Tensor, "b *d"], is_null: Bool[Tensor, "b"]) -> Float[Tensor, "b *d"]:
        """x_1, and in null rows that of another sample of the whole batch (z_1^uc, CrossFlow sec. 4.3). Collective."""
        if self.rows is None:
            return null_targets(x_1, is_null, generator=self.generator, across_ranks=False)
        other = random_cycle(self.total, generator=self.generator, device=x_1.device)
        everyone = self.everyone(x_1)
        return torch.where(expand_like(is_null, x_1), everyone[self._mine(other)], x_1)

    # --------------------------------------------------------------------------------- means over the whole batch

    @property
    def sizes(self) -> tuple[int, ...] | None:
        """How many rows each rank holds, which losses with negatives take as `sizes`; None for a whole batch."""
        return None if self.world is None else tuple(map(len, self.world.shares(self.total)))

    @property
    def group(self) -> Group | None:
        """What losses with negatives take as `group`; None for a whole batch."""
        return None if self.world is None else self.world.group

    def everyone(self, x: Float[Tensor, "b *d"]) -> Float[Tensor, "all_b *d"]:
        """The rows of all ranks, without gradient; x itself where this is all. Collective."""
        if self.rows is None:
            return x
        world, sizes = self._world(), self.sizes
        assert sizes is not None
        whole = WholeBatch(sizes, world.rank, world.group).gather(x.detach().flatten(1))
        return whole.view(self.total, *x.shape[1:])

    @property
    def weight(self) -> float:
        """What turns a mean over this rank's rows into its share of the mean over all: the shares' mean is that mean.

        ranks · rows / total; 1 where the rows are spread evenly, or this is all.
        """
        return 1.0 if self.rows is None else self._world().size * len(self.rows) / self.total

    def as_row_mean(self, share: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """A term whose mean over the ranks is that of the whole batch (cf_encoders' `info_nce` with a group), as a mean
        over this rank's rows, which every term of `Losses` is."""
        return share if self.rows is None else share / self.weight

    def share_of(self, count: Int[Tensor, ""]) -> Float[Tensor, ""] | float:
        """What turns a mean over `count` things of this rank (tokens, pixels) into a mean over its rows, such that the
        ranks' means make that over all their things. Collective."""
        if self.rows is None:
            return 1.0
        everywhere = self._world().total(count.double())
        return (count * self.total / (len(self.rows) * everywhere)).float()

    # --------------------------------------------------------------------------------------------------- inside

    def _world(self) -> World:
        if self.world is None:
            raise ValueError("these draws know no other ranks: they are of data, not of a training step")
        return self.world

    def _count(self, like: Tensor) -> int:
        return self._whole(like.shape)[0]

    def _whole(self, shape: torch.Size) -> torch.Size:
        """The shape of the whole batch from that of this rank's rows."""
        if self.rows is None:
            return shape
        if shape[0] != len(self.rows):
            raise ValueError(f"this rank holds {len(self.rows)} rows of {self.total}, asked for {shape[0]}")
        return torch.Size((self.total, *shape[1:]))

    def _mine(self, whole: Tensor) -> Tensor:
        return whole if self.rows is None else whole[self.rows.start : self.rows.stop]


def draws_of(generator: torch.Generator) -> Draws:
    """The rows that a generator draws for: all of them, unless it is a rank's."""
    return generator.draws if isinstance(generator, RankGenerator) else Draws(generator)


def step_draws(world: World, device: torch.device, total: int, *numbers: int) -> torch.Generator:
    """The generator of a pass over `total` rows of all ranks, seeded from integers such as (seed, step, part)."""
    whole = step_generator(device, *numbers)
    if world.size == 1:
        return whole
    return RankGenerator(Draws(whole, world.share(total), total, world), *numbers, world.rank)


def data_draws(rows: range | None, total: int, *numbers: int) -> torch.Generator:
    """The generator that data are drawn with: of `rows` of a batch of `total` samples (None: of all)."""
    whole = step_generator("cpu", *numbers)
    if rows is None:
        return whole
    return RankGenerator(Draws(whole, rows, total), *numbers, rows.start)


def own_rows(places: Int[Tensor, "b"], rows: range | None) -> Int[Tensor, "own"]:
    """Those of `rows`; all where it is None."""
    return places if rows is None else places[rows.start : rows.stop]


def by_itself(generator: torch.Generator) -> torch.Generator:
    """A generator for what cannot be drawn for the whole batch, because only the rank knows how much there is of it.

    With one process the same generator; else one that no other rank has, and another outcome than with one process.
    """
    if not isinstance(generator, RankGenerator):
        return generator
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    return torch.Generator(generator.device).manual_seed(seed)
