"""Couplings are permutations, and the exact one is the best of all."""

import builtins
import math
from itertools import permutations

import pytest
import torch
from cf_flowcore import independent, optimal_transport
from jaxtyping import TypeCheckError

METHODS = ["exact", "sinkhorn"]


def batch(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    x_0, x_1 = torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x_0, 2 * x_1 + 1


def cost(x_0: torch.Tensor, x_1: torch.Tensor, perm: torch.Tensor) -> float:
    return (x_0 - x_1[perm]).square().sum().item()


def is_permutation(perm: torch.Tensor, b: int) -> bool:
    return perm.dtype == torch.int64 and sorted(perm.tolist()) == list(range(b))


@pytest.mark.parametrize("shape", [(6, 2), (5, 3, 2, 2), (1, 4), (6,)])
def test_the_exact_coupling_is_the_cheapest_of_all_permutations(shape):
    x_0, x_1 = batch(*shape)
    perm = optimal_transport(x_0, x_1)
    least = min(cost(x_0, x_1, torch.tensor(p)) for p in permutations(range(shape[0])))
    assert cost(x_0, x_1, perm) == pytest.approx(least)


def test_on_a_line_it_sorts():
    x_0, x_1 = batch(40, 1)
    perm = optimal_transport(x_0, x_1)
    assert (x_1[perm][x_0[:, 0].argsort(), 0].diff() > 0).all()


@pytest.mark.parametrize("shape", [(64, 2), (32, 3, 4, 4), (1, 2)])
def test_sinkhorn_is_a_permutation_nearly_as_cheap(shape):
    x_0, x_1 = batch(*shape)
    exact, found = (optimal_transport(x_0, x_1, method=method) for method in ("exact", "sinkhorn"))
    assert is_permutation(found, shape[0])
    assert cost(x_0, x_1, found) <= 1.05 * cost(x_0, x_1, exact)
    if shape[0] > 1:
        assert cost(x_0, x_1, found) < 0.9 * cost(x_0, x_1, torch.arange(shape[0]))


@pytest.mark.parametrize("method", METHODS)
def test_every_sample_is_used_once_and_labels_follow(method):
    x_0, x_1 = batch(50, 2)
    labels = (x_1[:, 0] > 1).long()
    perm = optimal_transport(x_0, x_1, method=method)
    assert is_permutation(perm, 50)
    assert torch.equal(labels[perm], (x_1[perm][:, 0] > 1).long())


@pytest.mark.parametrize("method", METHODS)
def test_an_infinite_weight_keeps_samples_among_their_own_condition(method):
    x_0, x_1 = batch(60, 2)
    condition = torch.arange(60) % 3
    perm = optimal_transport(x_0, x_1, method=method, condition=condition)
    assert is_permutation(perm, 60)
    assert torch.equal(condition[perm], condition)
    for c in range(3):  # and couples each condition as if it were alone
        rows = (condition == c).nonzero()[:, 0]
        alone = rows[optimal_transport(x_0[rows], x_1[rows], method=method)]
        assert cost(x_0[rows], x_1, perm[rows]) <= 1.1 * cost(x_0[rows], x_1, alone)


def test_a_larger_weight_carries_samples_less_far_from_their_condition():
    x_0, x_1 = batch(80, 2)
    condition = x_1[:, :1]
    moved = [
        (condition - condition[optimal_transport(x_0, x_1, condition=condition, weight=w)]).abs().mean()
        for w in (0.0, 1.0, 100.0)
    ]
    assert moved[0] > moved[1] > moved[2]


def test_a_condition_of_weight_zero_changes_nothing():
    x_0, x_1 = batch(20, 2)
    free = optimal_transport(x_0, x_1)
    assert torch.equal(free, optimal_transport(x_0, x_1, condition=x_1, weight=0.0))


def test_independent_coupling_is_a_random_permutation_of_its_generator():
    x_0, x_1 = batch(30, 2)
    first, again = (independent(x_0, x_1, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert is_permutation(first, 30)
    assert torch.equal(first, again)
    assert not torch.equal(first, torch.arange(30))


@pytest.mark.parametrize("method", METHODS)
def test_no_gradient_goes_through_a_coupling_and_low_precision_is_fine(method):
    x_0, x_1 = (x.bfloat16().requires_grad_() for x in batch(8, 2))
    perm = optimal_transport(x_0, x_1, method=method)
    assert is_permutation(perm, 8)
    assert x_1[perm].requires_grad


def test_bad_input_is_refused():
    x_0, x_1 = batch(4, 2)
    with pytest.raises(ValueError, match="unknown method 'emd'; known: exact, sinkhorn"):
        optimal_transport(x_0, x_1, method="emd")
    with pytest.raises(ValueError, match="must be finite"):
        optimal_transport(x_0, x_1 * math.nan, method="sinkhorn")
    with pytest.raises((ValueError, TypeCheckError)):
        optimal_transport(x_0, x_1, condition=x_1[:3])
    for weight in (1.0, math.inf):
        with pytest.raises(ValueError, match="condition must be finite"):
            optimal_transport(x_0, x_1, method="sinkhorn", condition=x_1 * math.nan, weight=weight)
    with pytest.raises(ValueError, match="weight must be zero or more, got -1"):
        optimal_transport(x_0, x_1, condition=x_1, weight=-1.0)
    with pytest.raises(ValueError, match="regularisation must be positive, got 0"):
        optimal_transport(x_0, x_1, method="sinkhorn", regularisation=0.0)


def test_without_scipy_the_exact_coupling_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    x_0, x_1 = batch(4, 2)
    with pytest.raises(ImportError, match=r"pip install 'cf-flowcore\[ot\]', or method='sinkhorn'"):
        optimal_transport(x_0, x_1)
    assert is_permutation(optimal_transport(x_0, x_1, method="sinkhorn"), 4)
