"""The order conditions of Runge-Kutta methods by rooted trees (Hairer, Norsett & Wanner I, II.2)."""

import math
from dataclasses import replace

import pytest
import torch
from cf_flowcore.tableaus import BOSH3, DOPRI5, DOPRI5_SHAMPINE, DOPRI8, RK4, TABLEAUS, tableau

EXACT = 1e-13  # sums of float64 numbers up to 16
MISSED = 1e-7  # the least by which a method misses an order it does not have


def rooted_trees(nodes):
    """Every rooted tree of so many nodes, as the sorted tuple of the trees that hang from its root."""
    if nodes == 1:
        return [()]
    return sorted({tuple(sorted(forest)) for forest in forests(nodes - 1, nodes - 1)})


def forests(nodes, largest):
    """Every multiset of trees with so many nodes in all, none larger than `largest`."""
    if nodes == 0:
        return [()]
    return [
        (tree, *rest)
        for size in range(min(nodes, largest), 0, -1)
        for tree in rooted_trees(size)
        for rest in forests(nodes - size, size)
    ]


def size_and_density(tree):
    """Nodes of a tree, and the product of the sizes of all its subtrees."""
    parts = [size_and_density(child) for child in tree]
    size = 1 + sum(n for n, _ in parts)
    return size, size * math.prod(density for _, density in parts)


def elementary_weight(tree, a):
    """The product over the children of A times their own weights, stage by stage."""
    weight = torch.ones(len(a), dtype=torch.float64)
    for child in tree:
        weight = weight * (a @ elementary_weight(child, a))
    return weight


def residuals(rule, weights, order):
    """b . weight - 1 / density over all trees of that order: zero for a method of that order."""
    stages = len(rule.b)
    a = torch.tensor([[*row, *[0.0] * (stages - len(row))] for row in rule.a], dtype=torch.float64)
    b = torch.tensor(weights, dtype=torch.float64)
    return [float(b @ elementary_weight(t, a)) - 1 / size_and_density(t)[1] for t in rooted_trees(order)]


def test_there_are_as_many_trees_as_are_known():
    assert [len(rooted_trees(n)) for n in range(1, 9)] == [1, 1, 2, 4, 9, 20, 48, 115]


@pytest.mark.parametrize("name", TABLEAUS)
def test_each_method_satisfies_the_conditions_of_its_order_and_not_of_the_next(name):
    rule = tableau(name)
    for order in range(1, rule.order + 1):
        assert max(map(abs, residuals(rule, rule.b, order))) < EXACT
    assert max(map(abs, residuals(rule, rule.b, rule.order + 1))) > MISSED


@pytest.mark.parametrize("name", [name for name, rule in TABLEAUS.items() if rule.error])
def test_the_embedded_method_has_one_order_less(name):
    rule = tableau(name)
    embedded = [b - e for b, e in zip(rule.b, rule.error, strict=True)]
    for order in range(1, rule.order):
        assert max(map(abs, residuals(rule, embedded, order))) < EXACT
    assert max(map(abs, residuals(rule, embedded, rule.order))) > MISSED


@pytest.mark.parametrize("name", [name for name, rule in TABLEAUS.items() if rule.dense])
def test_the_quartic_between_the_steps_has_order_four(name):
    """s^2 (1 - s)^2 is all that the cubic misses of s^4: d has to bring 1/gamma of it, and nothing to smaller trees."""
    rule = tableau(name)
    stages = len(rule.b)
    a = torch.tensor([[*row, *[0.0] * (stages - len(row))] for row in rule.a], dtype=torch.float64)
    d = torch.tensor(rule.dense, dtype=torch.float64)
    for order in (1, 2, 3, 4):
        for tree in rooted_trees(order):
            wanted = 1 / size_and_density(tree)[1] if order == 4 else 0.0
            assert float(d @ elementary_weight(tree, a)) == pytest.approx(wanted, abs=EXACT)


def test_the_error_weights_are_those_of_the_peers():
    from scipy.integrate import RK45
    from torchdiffeq._impl.dopri5 import _DORMAND_PRINCE_SHAMPINE_TABLEAU

    torch.testing.assert_close(torch.tensor(DOPRI5.error, dtype=torch.float64), torch.from_numpy(-RK45.E))
    torch.testing.assert_close(
        torch.tensor(DOPRI5_SHAMPINE.error, dtype=torch.float64), _DORMAND_PRINCE_SHAMPINE_TABLEAU.c_error
    )


def test_bosh3_and_dopri8_are_torchdiffeqs():
    from torchdiffeq._impl.bosh3 import _BOGACKI_SHAMPINE_TABLEAU
    from torchdiffeq._impl.dopri8 import _DOPRI8_TABLEAU

    for rule, peer in ((BOSH3, _BOGACKI_SHAMPINE_TABLEAU), (DOPRI8, _DOPRI8_TABLEAU)):
        stages = len(rule.b)
        for row, theirs in zip(rule.a[1:], peer.beta, strict=False):
            torch.testing.assert_close(torch.tensor(row, dtype=torch.float64), theirs)
        torch.testing.assert_close(torch.tensor(rule.b, dtype=torch.float64), peer.c_sol[:stages])
        torch.testing.assert_close(torch.tensor(rule.error, dtype=torch.float64), peer.c_error[:stages])


def test_which_methods_hand_their_last_stage_on():
    handed_on = [name for name in TABLEAUS if tableau(name).first_same_as_last]
    assert handed_on == ["bosh3", "dopri5", "dopri5-shampine", "tsit5"]


def test_an_unknown_method_is_refused_with_the_known_names():
    with pytest.raises(ValueError, match=r"'eular'; known: euler, midpoint, heun, rk4, bosh3, dopri5"):
        tableau("eular")


@pytest.mark.parametrize(
    "wrong",
    [
        {"c": (0.0, 0.5, 0.5)},
        {"c": (0.0, 0.5, 0.4, 1.0)},
        {"error": (1.0,)},
        {"error": (1.0, 0.0, 0.0, -0.9)},
    ],
    ids=str,
)
def test_a_tableau_that_does_not_fit_together_is_refused(wrong):
    with pytest.raises(ValueError, match=r"stages need|must hold|sum to 0, got 0\.1"):
        replace(RK4, **wrong)
