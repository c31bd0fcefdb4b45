"""The order of shards: every sample once an epoch, the same for every cut of the stream, mixed, and read in windows."""

import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from cf_apps.data.shards.order import block_order, uniforms
from cf_apps.engine.seeds import mixed_seed

COUNTS = (5, 1, 0, 7, 3, 4, 0, 6)
N = sum(COUNTS)


def pairs(first: int, size: int, seed: int = 3, window: int = 3) -> list[tuple[int, int]]:
    shards, rows = block_order(COUNTS, first, size, seed, window)
    return list(zip(shards.tolist(), rows.tolist(), strict=True))


EVERYTHING = {(shard, row) for shard, count in enumerate(COUNTS) for row in range(count)}


@pytest.mark.parametrize("window", [1, 2, 3, 8, 50])
def test_each_epoch_has_every_sample_once(window):
    epochs = [pairs(epoch * N, N, window=window) for epoch in range(3)]
    assert all(set(epoch) == EVERYTHING and len(epoch) == N for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_stream_is_the_same_however_it_is_cut():
    whole = pairs(0, 5 * N)
    dice = random.Random(0)
    for _ in range(20):
        cuts = sorted(dice.sample(range(1, 5 * N), 6))
        parts = [pairs(a, b - a) for a, b in zip([0, *cuts], [*cuts, 5 * N], strict=True)]
        assert [one for part in parts for one in part] == whole


def test_seeds_give_other_orders():
    assert pairs(0, N, seed=3) != pairs(0, N, seed=4)


@pytest.mark.parametrize("window", [1, 2, 3])
def test_samples_come_from_a_window_of_shards_at_a_time_and_are_mixed_in_it(window):
    counts, shards_in_order = (50,) * 6, []
    shards, _ = block_order(counts, 0, 300, 1, window)
    for start in range(0, 300, 50 * window):
        here = shards[start : start + 50 * window].tolist()
        assert len(set(here)) == window
        shards_in_order += sorted(set(here))
        neighbours = sum(a == b for a, b in pairwise(here)) / (len(here) - 1)
        assert neighbours == pytest.approx(1 / window, abs=0.12)  # as independent draws would
    assert sorted(shards_in_order) == list(range(6))


def test_within_a_window_every_sample_is_as_likely_at_every_place():
    """the mean place of each of 2 x 4 samples over 400 seeds is that of a uniform law: 3.5, its error 2.29 / 20"""
    places = torch.zeros(8)
    for seed in range(400):
        shards, rows = block_order((4, 4), 0, 8, seed, 2)
        places[shards * 4 + rows] += torch.arange(8)
    assert (places / 400 - 3.5).abs().max() < 4 * 2.29 / 20


def test_a_set_of_nothing_has_no_order():
    with pytest.raises(ValueError, match="cannot give place 0 of 0 samples"):
        block_order((0, 0), 0, 1, 0)


# ------------------------------------------------------------------------------------------------- draws by place


def splitmix64(seed: int, place: int) -> int:
    """Steele et al. 2014, in Python's whole numbers."""
    mask = 2**64 - 1
    z = (seed + place * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_the_reference_is_splitmix64():
    """the first outputs for seed 0, as published with the generator"""
    assert [splitmix64(0, k) for k in (1, 2)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_draws_are_splitmix64_of_the_place():
    found = uniforms(10**12, 5, 7, 1).tolist()
    assert found == [(splitmix64(mixed_seed(7, 1), 10**12 + k) >> 11) * 2.0**-53 for k in range(5)]


def test_draws_are_the_same_however_they_are_cut():
    whole = uniforms(0, 100, 5)
    assert torch.equal(torch.cat([uniforms(0, 37, 5), uniforms(37, 63, 5)]), whole)
    assert not torch.equal(uniforms(0, 100, 6), whole)


def test_draws_are_uniform_and_neighbours_independent():
    u = uniforms(0, 20_000, 1, 0).numpy()
    ends = np.arange(1, len(u) + 1) / len(u)
    assert np.abs(np.sort(u) - ends).max() < 1.63 / np.sqrt(len(u))  # Kolmogorov-Smirnov at 1 %
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.03
    assert abs(np.corrcoef(u, uniforms(0, 20_000, 1, 1).numpy())[0, 1]) < 0.03
