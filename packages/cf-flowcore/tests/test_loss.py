import sys
from pathlib import Path as Folder

import pytest
import torch
from cf_flowcore import (
    VE,
    VP,
    CondOT,
    LogitNormal,
    flow_matching_loss,
    noise_matching_loss,
    score_matching_loss,
)

sys.path.insert(0, str(Folder(__file__).parent))
from gaussian_world import GaussianWorld

PATH = CondOT(sigma_min=0.1)


def batch(*shape, seed=0):
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).unbind()


def test_the_loss_is_the_mean_square_of_the_velocity_error_by_hand():
    x_0, x_1 = batch(3, 2, 5)
    t = torch.tensor([0.0, 0.3, 0.9], dtype=torch.float64)
    loss = flow_matching_loss(lambda x, t: x * t[:, None, None], x_0, x_1, path=PATH, t=t)
    for i in range(3):
        x_t = t[i] * x_1[i] + (1 - 0.9 * t[i]) * x_0[i]
        assert loss[i] == pytest.approx(float((t[i] * x_t - (x_1[i] - 0.9 * x_0[i])).square().mean()))


def test_the_true_velocity_has_no_loss():
    x_0, x_1 = batch(4, 3)
    loss = flow_matching_loss(lambda x, t: x_1 - 0.9 * x_0, x_0, x_1, path=PATH)
    assert loss.shape == (4,)
    assert loss.max() < 1e-13  # t is float32, so 0.9 has float32 rounding


def test_gradients_reach_the_source_through_x_t_and_through_the_target():
    # L = mean (w x_t - x_1 + (1 - s) x_0)^2, so dL/dx_0 = 2/d (w x_t - v_t) (w b + (1 - s)):
    # w b is the way through x_t, (1 - s) the way through the target
    x_0, x_1 = batch(3, 5)
    x_0.requires_grad_()
    t, w = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64), 0.7
    flow_matching_loss(lambda x, t: w * x, x_0, x_1, path=PATH, t=t).sum().backward()
    b = (1 - 0.9 * t)[:, None]
    error = w * (t[:, None] * x_1 + b * x_0) - (x_1 - 0.9 * x_0)
    torch.testing.assert_close(x_0.grad, (2 / 5 * error * (w * b + 0.9)).detach())


def test_the_best_linear_field_of_a_gaussian_coupling_is_the_known_one():
    # x_0, x_1 ~ N(0, 1) independent: E[v_t | x_t] = (t - (1-s) b) / (t^2 + b^2) x_t
    g = torch.Generator().manual_seed(1)
    x_0, x_1 = torch.randn(2, 200_000, 1, generator=g, dtype=torch.float64).unbind()
    t = torch.full((200_000,), 0.4, dtype=torch.float64)
    b = 1 - 0.9 * 0.4
    best = (0.4 - 0.9 * b) / (0.4**2 + b**2)
    losses = [
        flow_matching_loss(lambda x, t, w=w: w * x, x_0, x_1, path=PATH, t=t).mean()
        for w in (best - 0.05, best, best + 0.05)
    ]
    assert losses[1] < losses[0]
    assert losses[1] < losses[2]


def test_the_weight_is_a_function_of_t_and_multiplies_each_sample():
    x_0, x_1 = batch(3, 2)
    t = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    plain = flow_matching_loss(lambda x, t: x, x_0, x_1, path=PATH, t=t)
    weighted = flow_matching_loss(lambda x, t: x, x_0, x_1, path=PATH, t=t, weight=lambda t: 1 / t)
    torch.testing.assert_close(weighted, plain / t)


def test_the_field_sees_times_of_the_law_given_and_the_generator_repeats_them():
    x_0, x_1 = batch(7, 2)
    seen = []
    for _ in range(2):
        flow_matching_loss(
            lambda x, t: seen.append(t) or x,
            x_0,
            x_1,
            path=PATH,
            times=LogitNormal(5.0, 0.1),
            generator=torch.Generator().manual_seed(0),
        )
    assert torch.equal(*seen)
    assert (seen[0] > 0.95).all()


def test_t_and_a_law_together_are_refused():
    x_0, x_1 = batch(2, 2)
    with pytest.raises(ValueError, match="both t and times"):
        flow_matching_loss(lambda x, t: x, x_0, x_1, path=PATH, t=torch.ones(2), times=LogitNormal())


def test_a_bfloat16_field_still_gives_a_float32_loss():
    x_0, x_1 = (x.bfloat16() for x in batch(5, 33))
    loss = flow_matching_loss(lambda x, t: x, x_0, x_1, path=PATH, t=torch.full((5,), 0.5))
    assert loss.dtype == torch.float32


def test_a_state_without_dimensions_has_a_loss_too():
    x_0, x_1 = batch(6)
    assert flow_matching_loss(lambda x, t: x, x_0, x_1, path=PATH).shape == (6,)


# --------------------------------------------------------------------------------------------- the baselines

GAUSSIAN = CondOT(sigma_min=0.1, gaussian_source=True)


def test_noise_matching_is_the_mean_square_of_what_is_left_of_the_source():
    x_0, x_1 = batch(3, 2, 5)
    t = torch.tensor([0.0, 0.3, 0.9], dtype=torch.float64)
    loss = noise_matching_loss(lambda x, t: x * t[:, None, None], x_0, x_1, path=PATH, t=t)
    for i in range(3):
        x_t = t[i] * x_1[i] + (1 - 0.9 * t[i]) * x_0[i]
        assert loss[i] == pytest.approx(float((t[i] * x_t - x_0[i]).square().mean()))


@pytest.mark.parametrize("path", [GAUSSIAN, VP(), VE(0.1, 5.0), VE(0.1, 5.0, ends_at_zero=True)])
def test_score_matching_is_the_weighted_distance_to_the_conditional_score_by_hand(path):
    x_0, x_1 = batch(3, 2)
    t = torch.tensor([0.1, 0.3, 0.9], dtype=torch.float64)
    a, b, da, db = path.coefficients(t)
    x_t = (a[:, None] * x_1 + b[:, None] * x_0).requires_grad_()
    # of ln N(x_t; a x_1, b^2), which is what the loss regresses on
    log_p = torch.distributions.Normal(a[:, None] * x_1, b[:, None].expand(3, 2)).log_prob(x_t)
    (conditional,) = torch.autograd.grad(log_p.sum(), x_t)
    square = (0.3 * x_t.detach() - conditional).square().mean(1)
    g_squared = 2 * b * (da * b - a * db) / a
    for weight, by_hand in (
        ("sm", b**2),
        ("scoreflow", g_squared),
        (lambda t: 1 / (1 + t), 1 / (1 + t)),
    ):
        loss = score_matching_loss(lambda x, t: 0.3 * x, x_0, x_1, path=path, t=t, weight=weight)
        torch.testing.assert_close(loss, by_hand * square)


def test_the_scoreflow_weight_is_beta_on_vp():
    x_0, x_1 = batch(3, 2)
    t = torch.tensor([0.1, 0.5, 0.99], dtype=torch.float64)
    one = score_matching_loss(lambda x, t: x, x_0, x_1, path=VP(), t=t, weight=torch.ones_like)
    flow = score_matching_loss(lambda x, t: x, x_0, x_1, path=VP(), t=t, weight="scoreflow")
    torch.testing.assert_close(flow, (0.1 + (1 - t) * 19.9) * one)


@pytest.mark.parametrize(
    ("loss", "best"),
    [
        (flow_matching_loss, "velocity"),
        (noise_matching_loss, "noise"),
        (score_matching_loss, "score"),
    ],
)
def test_the_truth_has_the_least_loss_and_its_negative_much_more(loss, best):
    """Pins the sign of every target: the paper writes minus the score in places."""
    g = torch.Generator().manual_seed(0)
    world = GaussianWorld(VP())
    x_0, z = torch.randn(2, 20_000, 1, generator=g, dtype=torch.float64).unbind()
    x_1 = world.mean + world.std * z
    t = 0.05 + 0.9 * torch.rand(20_000, generator=g, dtype=torch.float64)
    truth = getattr(world, best)
    at = {
        f: loss(lambda x, t, f=f: f * truth(x, t), x_0, x_1, path=world.path, t=t).mean()
        for f in (-1.0, 0.9, 1.0, 1.1)
    }
    assert at[1.0] < min(at[0.9], at[1.1])
    assert at[-1.0] > 1.5 * at[1.0]


def test_noise_matching_takes_any_source_and_score_matching_only_a_gaussian_one():
    x_0, x_1 = batch(3, 2)
    assert noise_matching_loss(lambda x, t: x, x_0, x_1, path=CondOT()).shape == (3,)
    with pytest.raises(ValueError, match="score matching needs x_0"):
        score_matching_loss(lambda x, t: x, x_0, x_1, path=CondOT())


def test_an_unknown_weight_is_refused_and_the_known_ones_listed():
    x_0, x_1 = batch(3, 2)
    with pytest.raises(ValueError, match="unknown weight 'snr'; known: sm, scoreflow, or a function"):
        score_matching_loss(lambda x, t: x, x_0, x_1, path=VP(), weight="snr")


@pytest.mark.parametrize("loss", [flow_matching_loss, noise_matching_loss, score_matching_loss])
def test_uniform_times_end_where_the_path_does(loss, monkeypatch):
    """A float32 draw may be 1 - 6e-8, where the velocity of VP is a thousand times that of t_max."""
    monkeypatch.setattr("cf_flowcore.times.uniform_numbers", lambda b, **_: torch.full((b,), 1 - 2.0**-24))
    seen = []
    x_0, x_1 = batch(3, 2)
    for path in (VP(), GAUSSIAN):
        loss(lambda x, t: seen.append(t) or x, x_0, x_1, path=path)
    assert seen[0].max() <= torch.tensor(1 - 1e-5)
    assert seen[1].max() > 1 - 1e-6
