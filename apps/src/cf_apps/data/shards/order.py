"""The order in which shards are read: each place of an endless stream has one sample, whoever asks for it."""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cf_apps.engine.seeds import mixed_seed, step_generator

WINDOW = (
    8  # shards that samples are shuffled among: large enough to mix, small enough to stay in the page cache
)


def block_order(
    counts: tuple[int, ...], first: int, size: int, seed: int, window: int = WINDOW
) -> tuple[Int64[Tensor, "size"], Int64[Tensor, "size"]]:
    """(shard, sample in it) of places first, ..., first + size - 1 of the endless shuffled stream over the shards.

    counts: samples of each shard. Each epoch (n = Σ counts places in a row) has every sample once. It takes the shards
    in an order drawn from (seed, epoch), `window` at a time, and the samples of those in an order of their own. A disk
    then reads some shards at a time, and samples of all of them follow one another.

    A function of the place alone: a batch may be cut among any number of processes, and resuming is exact.
    """
    if first < 0 or sum(counts) < 1:
        raise ValueError(f"cannot give place {first} of {sum(counts)} samples; both must be there")
    places = torch.arange(first, first + size)
    epochs, within = places.div(sum(counts), rounding_mode="floor"), places.remainder(sum(counts))
    shards, rows = torch.empty_like(places), torch.empty_like(places)
    for epoch in epochs.unique().tolist():
        here = epochs == epoch
        shards[here], rows[here] = _of_epoch(counts, within[here], seed, epoch, window)
    return shards, rows


def _of_epoch(
    counts: tuple[int, ...], places: Int64[Tensor, "n"], seed: int, epoch: int, window: int
) -> tuple[Int64[Tensor, "n"], Int64[Tensor, "n"]]:
    order, starts, ends = _shard_order(counts, seed, epoch)
    windows = torch.searchsorted(ends, places, right=True) // window  # right: empty shards are passed over
    mixed = torch.empty_like(places)
    for number in windows.unique().tolist():
        here = windows == number
        begin = int(starts[number * window])
        end = int(ends[min((number + 1) * window, len(ends)) - 1])
        mixed[here] = begin + _permutation(end - begin, seed, epoch, number)[places[here] - begin]
    turn = torch.searchsorted(ends, mixed, right=True)
    return order[turn], mixed - starts[turn]


@lru_cache(maxsize=2)  # a batch at the end of an epoch needs two
def _shard_order(
    counts: tuple[int, ...], seed: int, epoch: int
) -> tuple[Int64[Tensor, "s"], Int64[Tensor, "s"], Int64[Tensor, "s"]]:
    """The shards in their turn, and how many samples are behind each when it begins and when it is done."""
    order = _permutation(len(counts), seed, epoch)
    sizes = torch.tensor(counts)[order]
    return order, sizes.cumsum(0) - sizes, sizes.cumsum(0)


@lru_cache(maxsize=8)
def _permutation(n: int, *numbers: int) -> Int64[Tensor, "n"]:
    return torch.randperm(n, generator=step_generator("cpu", *numbers))


def uniforms(first: int, size: int, *numbers: int) -> Float[Tensor, "size"]:
    """Numbers in [0, 1), float64: one for each of the places first, ..., first + size - 1, a function of that place.

    numbers: what else it depends on, such as a seed. SplitMix64 (Steele et al. 2014) of the place, counted from a seed
    mixed from the numbers.
    """
    places = np.arange(first, first + size, dtype=np.uint64)
    z = np.uint64(mixed_seed(*numbers)) + places * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return torch.from_numpy(((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53)
