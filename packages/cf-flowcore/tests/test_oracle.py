"""The exact field of finite data: against autograd of the mixture's density, and by where it ends."""

import math
import sys
from pathlib import Path as Folder

import pytest
import torch
from cf_flowcore import CondOT, convert, exact_velocity, oracle, solve
from cf_flowcore.oracle import expected_data, log_density

sys.path.insert(0, str(Folder(__file__).parent))
from gaussian_world import PATHS


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", PATHS)
def test_its_score_is_the_gradient_of_the_log_density_of_the_mixture(name):
    path, data = PATHS[name], numbers(5, 2, seed=1)
    x, t = numbers(6, 2).requires_grad_(), torch.linspace(0.05, 0.9, 6, dtype=torch.float64)
    a, b, _, _ = path.coefficients(t)
    by_hand = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(6, 5, dtype=torch.float64)),
        torch.distributions.Independent(
            torch.distributions.Normal(a[:, None, None] * data, b[:, None, None].expand(6, 5, 2)), 1
        ),
    ).log_prob(x)
    torch.testing.assert_close(log_density(x, t, data, path=path), by_hand)
    (score,) = torch.autograd.grad(by_hand.sum(), x)
    v = exact_velocity(x.detach(), t, data, path=path)
    found = convert(v, x.detach(), t, path=path, source="velocity", target="score")
    torch.testing.assert_close(found, score, atol=1e-8, rtol=1e-8)


def test_for_one_point_of_data_it_is_the_conditional_velocity_of_lipman_equation_21():
    x, t, point = (
        numbers(4, 3),
        torch.tensor([0.0, 0.2, 0.6, 0.95], dtype=torch.float64),
        numbers(1, 3, seed=2),
    )
    s = 0.05
    u = (point - (1 - s) * x) / (1 - (1 - s) * t)[:, None]
    torch.testing.assert_close(exact_velocity(x, t, point, path=CondOT(s, gaussian_source=True)), u)


def test_solving_it_ends_on_the_data():
    data = torch.tensor([[2.0, 0.0], [-2.0, 1.0], [0.0, -2.0]], dtype=torch.float64)
    path = PATHS["condot"]
    end = solve(
        lambda x, t: exact_velocity(x, t, data, path=path), numbers(64, 2), steps=200, method="midpoint"
    ).x
    nearest = torch.cdist(end, data).min(1)
    assert nearest.values.max() < 1e-2
    assert len(nearest.indices.unique()) == 3


def test_near_the_end_float32_still_tells_neighbours_apart():
    """|x|^2 - 2 x x_1 + |x_1|^2 would have lost all digits here."""
    data = 100 + torch.tensor([[0.0], [1e-3]])
    path, t = PATHS["condot to the point"], torch.tensor([1 - 2.0**-13])
    x = t[:, None] * data[1:] + (1 - t)[:, None] * 0.3
    exact = expected_data(x.double(), t.double(), data.double(), path=path)
    torch.testing.assert_close(expected_data(x, t, data, path=path).double(), exact, atol=1e-4, rtol=0)


def test_data_in_parts_gives_the_same(monkeypatch):
    x, t, data = numbers(4, 2, 3), torch.full((4,), 0.4, dtype=torch.float64), numbers(11, 2, 3, seed=5)
    whole = exact_velocity(x, t, data, path=PATHS["cosine"])
    monkeypatch.setattr(oracle, "NUMBERS_AT_ONCE", 24 * 3)
    torch.testing.assert_close(exact_velocity(x, t, data, path=PATHS["cosine"]), whole)


def test_a_source_that_is_not_declared_gaussian_is_refused():
    with pytest.raises(ValueError, match="gaussian_source=True"):
        exact_velocity(numbers(2, 2), torch.full((2,), 0.5), numbers(3, 2), path=CondOT())


def test_the_density_integrates_to_one():
    data, path = torch.tensor([[-1.0], [0.5]], dtype=torch.float64), PATHS["vp"]
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    for t in (0.1, 0.6, 0.9):
        p = log_density(x[:, None], torch.full_like(x, t), data, path=path).exp()
        assert math.isclose(torch.trapezoid(p, x).item(), 1.0, abs_tol=1e-9)
