import pytest
import torch
from cf_encoders import dropout
from cf_encoders.dropout import Dropout, add_dropped, drop, kept

DRAWS = 400_000


@pytest.mark.parametrize("p", [0.1, 0.5, 0.03, 0.97])
def test_it_drops_that_share_of_every_lane_and_keeps_the_mean(p):
    torch.manual_seed(0)
    mask = kept(torch.empty(DRAWS, dtype=torch.float64), p)
    dropped = (mask == 0).double().view(-1, 4).mean(dim=0)  # four elements share a random word
    standard_error = (p * (1 - p) / (DRAWS / 4)) ** 0.5
    torch.testing.assert_close(dropped, torch.full((4,), p).double(), rtol=0, atol=5 * standard_error)
    assert mask.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=1e-3)
    expected = 5 * ((1 / (1 - p) - 1) / DRAWS) ** 0.5
    assert mask.mean().item() == pytest.approx(1, abs=expected)


def test_neighbours_are_dropped_independently():
    torch.manual_seed(0)
    dropped = (kept(torch.empty(DRAWS), 0.3) == 0).double() - 0.3
    for lag in (1, 2, 3, 4, 5, 8):
        correlation = (dropped[lag:] * dropped[:-lag]).mean() / 0.21
        assert abs(correlation) < 5 / DRAWS**0.5


@pytest.mark.parametrize("p", [1e-9, 1e-5, 1 - 1e-9])
def test_the_rarest_and_the_surest_drop_stay_within_sixteen_bits(p):
    mask = kept(torch.empty(10_001), p)
    assert mask.isfinite().all()
    assert ((mask == 0).double().mean() - p).abs() < 1e-2


@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 3, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_is_kept_is_scaled_and_the_rest_is_zero(shape, dtype):
    torch.manual_seed(0)
    x = torch.full(shape, 3.0, dtype=dtype)
    dropped = drop(x, 0.25)
    assert dropped.dtype == dtype
    assert dropped.shape == x.shape
    assert set(dropped.flatten().tolist()) <= {0.0, 4.0}


def test_x_plus_dropped_y_is_both_together_and_y_gets_the_masks_gradient():
    x, y = torch.randn(2, 50, 7, dtype=torch.float64, requires_grad=True).unbind(0)
    torch.manual_seed(1)
    together = add_dropped(x, y, 0.4)
    torch.manual_seed(1)
    torch.testing.assert_close(together, x + drop(y, 0.4))
    torch.manual_seed(1)
    mask = kept(y, 0.4)
    grads = torch.autograd.grad(together.sum(), (x, y))
    torch.testing.assert_close(grads, (torch.ones_like(x), mask))


def test_a_seed_gives_the_same_mask_again():
    x = torch.ones(1000)
    first = drop(x, 0.5) if torch.manual_seed(3) else None
    second = drop(x, 0.5) if torch.manual_seed(3) else None
    assert torch.equal(first, second)
    assert not torch.equal(first, drop(x, 0.5))


def test_without_training_or_without_p_nothing_is_drawn():
    x = torch.randn(5, 3)
    state = torch.get_rng_state()
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert torch.equal(add_dropped(x, x, 0.0), 2 * x)
    assert torch.equal(torch.get_rng_state(), state)
    assert (Dropout(0.5)(torch.ones(1000)) == 0).any()


def test_elsewhere_it_is_torchs_own(monkeypatch):
    monkeypatch.setattr(dropout, "_by_bits", lambda x: False)
    x, y = torch.ones(2, 1000).unbind(0)
    torch.manual_seed(0)
    expected = torch.nn.functional.dropout(y, 0.3)
    torch.manual_seed(0)
    assert torch.equal(drop(y, 0.3), expected)
    torch.manual_seed(0)
    assert torch.equal(add_dropped(x, y, 0.3), x + expected)
