"""The order conditions of Runge-Kutta methods by rooted trees (Hairer, Norsett & Wanner I, II.2)."""

from dataclasses import replace

import pytest
import torch
from cf_flowcore.tableaus import DOPRI5, DOPRI5_SHAMPINE, RK4, TABLEAUS, tableau

EXACT = 1e-14  # sums of a dozen float64 numbers of order 1


def order_conditions(rule):
    """(order, elementary weight without b, 1 / density) of every rooted tree with at most five nodes."""
    s = len(rule.b)
    a = torch.tensor([[*row, *[0.0] * (s - len(row))] for row in rule.a], dtype=torch.float64)
    c, one = torch.tensor(rule.c, dtype=torch.float64), torch.ones(s, dtype=torch.float64)
    ac = a @ c
    return [
        (1, one, 1),
        (2, c, 1 / 2),
        (3, c**2, 1 / 3),
        (3, ac, 1 / 6),
        (4, c**3, 1 / 4),
        (4, c * ac, 1 / 8),
        (4, a @ c**2, 1 / 12),
        (4, a @ ac, 1 / 24),
        (5, c**4, 1 / 5),
        (5, c**2 * ac, 1 / 10),
        (5, ac**2, 1 / 20),
        (5, c * (a @ c**2), 1 / 15),
        (5, c * (a @ ac), 1 / 30),
        (5, a @ c**3, 1 / 20),
        (5, a @ (c * ac), 1 / 40),
        (5, a @ a @ c**2, 1 / 60),
        (5, a @ a @ ac, 1 / 120),
    ]


def residuals(rule, weights, order):
    b = torch.tensor(weights, dtype=torch.float64)
    return [float(b @ tree - value) for nodes, tree, value in order_conditions(rule) if nodes == order]


@pytest.mark.parametrize("name", TABLEAUS)
def test_each_method_satisfies_the_conditions_of_its_order_and_not_of_the_next(name):
    rule = tableau(name)
    for order in range(1, rule.order + 1):
        assert max(map(abs, residuals(rule, rule.b, order))) < EXACT
    if rule.order < 5:
        assert max(map(abs, residuals(rule, rule.b, rule.order + 1))) > 1e-3


@pytest.mark.parametrize("rule", [DOPRI5, DOPRI5_SHAMPINE], ids=["standard", "shampine"])
def test_the_embedded_method_has_order_four_and_not_five(rule):
    embedded = [b - e for b, e in zip(rule.b, rule.error, strict=True)]
    for order in range(1, 5):
        assert max(map(abs, residuals(rule, embedded, order))) < EXACT
    assert max(map(abs, residuals(rule, embedded, 5))) > 1e-5


def test_the_error_weights_are_those_of_the_peers():
    from scipy.integrate import RK45
    from torchdiffeq._impl.dopri5 import _DORMAND_PRINCE_SHAMPINE_TABLEAU

    torch.testing.assert_close(torch.tensor(DOPRI5.error, dtype=torch.float64), torch.from_numpy(-RK45.E))
    torch.testing.assert_close(
        torch.tensor(DOPRI5_SHAMPINE.error, dtype=torch.float64), _DORMAND_PRINCE_SHAMPINE_TABLEAU.c_error
    )


def test_only_dopri5_hands_its_last_stage_on():
    assert [name for name in TABLEAUS if tableau(name).first_same_as_last] == ["dopri5", "dopri5-shampine"]


def test_an_unknown_method_is_refused_with_the_known_names():
    with pytest.raises(ValueError, match=r"'eular'; known: euler, midpoint, heun, rk4, dopri5"):
        tableau("eular")


@pytest.mark.parametrize(
    "wrong", [{"c": (0.0, 0.5, 0.5)}, {"c": (0.0, 0.5, 0.4, 1.0)}, {"error": (1.0,)}], ids=str
)
def test_a_tableau_that_does_not_fit_together_is_refused(wrong):
    with pytest.raises(ValueError, match=r"stages need|must hold"):
        replace(RK4, **wrong)
