"""Losses add up with their weights, and only with them."""

import pytest
import torch
from cf_apps.engine import Losses


def test_total_is_the_weighted_sum_and_statistics_stay_out_of_it():
    w = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    losses = Losses({"a": (1.0, w**2), "b": (0.25, 3 * w)}, {"s": 100 * w.detach()})
    assert losses.total.item() == 4.0 + 1.5
    losses.total.backward()
    assert w.grad is not None
    assert w.grad.item() == 2 * 2.0 + 0.75


def test_scalars_show_the_losses_without_weights_and_the_total():
    losses = Losses({"a": (0.5, torch.tensor(4.0, requires_grad=True))})
    assert {name: value.item() for name, value in losses.scalars().items()} == {"a": 4.0, "total": 2.0}
    assert not any(value.requires_grad for value in losses.scalars().values())


@pytest.mark.parametrize("terms", [{}, {"total": (1.0, torch.tensor(1.0))}])
def test_no_terms_or_a_term_called_total_are_refused(terms):
    with pytest.raises(ValueError, match=r"term|total"):
        Losses(terms)
