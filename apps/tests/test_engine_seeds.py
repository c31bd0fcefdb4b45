"""Randomness and order are functions of (seed, step)."""

import pytest
import torch
from cf_apps.engine import endless_order, step_generator
from cf_apps.engine.seeds import mixed_seed, seed_torch


def test_neighbouring_seeds_and_steps_do_not_collide():
    seeds = [mixed_seed(seed, step) for seed in range(60) for step in range(61)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert mixed_seed(1, 23) != mixed_seed(12, 3)


def test_the_mixed_seed_is_the_same_on_every_machine():
    assert mixed_seed(0, 0) == 5046677104938694277


def test_a_step_generator_repeats_and_differs_from_its_neighbour():
    draw = [torch.rand(9, generator=step_generator("cpu", 3, step)) for step in (7, 7, 8)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])


def test_seed_torch_repeats_what_dropout_drops():
    ones, drops = torch.ones(50), []
    with torch.random.fork_rng([]):
        for step in (4, 4, 5):
            seed_torch(torch.device("cpu"), 0, step)
            drops.append(torch.nn.functional.dropout(ones, 0.5))
    assert torch.equal(drops[0], drops[1])
    assert not torch.equal(drops[0], drops[2])


@pytest.mark.parametrize("n", [1, 2, 5, 37])
def test_each_epoch_holds_every_sample_once(n):
    order = endless_order(n, 0, 4 * n, seed=1).view(4, n)
    assert torch.equal(order.sort(dim=1).values, torch.arange(n).expand(4, n))


def test_epochs_are_shuffled_differently():
    first, second = endless_order(37, 0, 74, seed=1).view(2, 37)
    assert not torch.equal(first, second)
    assert not torch.equal(first, endless_order(37, 0, 37, seed=2))


@pytest.mark.parametrize("size", [1, 3, 8, 50, 111])
def test_the_stream_does_not_depend_on_how_it_is_cut(size):
    whole = endless_order(37, 0, 111, seed=5)
    cut = torch.cat(
        [endless_order(37, first, min(size, 111 - first), seed=5) for first in range(0, 111, size)]
    )
    assert torch.equal(cut, whole)


def test_no_samples_is_an_error():
    with pytest.raises(ValueError, match="empty"):
        endless_order(0, 0, 1, seed=0)
