"""The flow that all tasks share: its loss, holes in the target, and the way from x_0 to x_1."""

import pytest
import torch
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import FlowConfig, SampleConfig, by_time, carry, flow_loss
from cf_flowcore import draw_null
from torch import Tensor

SHAPE = (5, 2, 6, 6)
PLAIN = FlowConfig(null_rate=0.4, sigma_min=0.1)


def dice(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Net:
    """v at two scales, from nothing but x_t and who is null; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Tensor, Tensor, Tensor]] = []

    def __call__(self, x_t: Tensor, t: Tensor, is_null: Tensor) -> Tensor:
        return self.scales(x_t, t, is_null)[-1]

    def scales(self, x_t: Tensor, t: Tensor, is_null: Tensor) -> tuple[Tensor, ...]:
        self.asked.append((x_t, t, is_null))
        fine = torch.sin(3 * x_t) + is_null[:, None, None, None]
        return fine[..., ::3, ::3], fine


def pairs() -> tuple[Tensor, Tensor]:
    return torch.randn(SHAPE, generator=dice(1)).double(), torch.randn(SHAPE, generator=dice(2)).double()


def test_rows_that_are_not_null_are_led_to_their_own_target():
    (x_0, x_1), net = pairs(), Net()
    flow_loss(net, x_0, x_1, PLAIN, dice(3))
    x_t, t, is_null = net.asked[0]
    assert 0 < is_null.sum() < 5
    s = t.double().view(-1, 1, 1, 1)
    target = (x_t - (1 - 0.9 * s) * x_0) / s  # of x_t = t x_1 + (1 - (1 - sigma_min) t) x_0
    torch.testing.assert_close(target[~is_null], x_1[~is_null], atol=1e-5, rtol=1e-5)
    for row in target[is_null]:
        assert (row - x_1).abs().amax((1, 2, 3)).min() < 1e-4  # somebody's, see below
    assert ((target - x_1).abs().amax((1, 2, 3))[is_null] > 0.1).all()  # but not its own


def test_the_loss_is_the_weighted_sum_of_the_scales():
    (x_0, x_1), net = pairs(), Net()
    config = FlowConfig(null_rate=0.0, sigma_min=0.1, scale_weights=(0.7, 1.3))
    flow = flow_loss(net, x_0, x_1, config, dice(3))
    x_t, t, is_null = net.asked[0]
    low, fine = Net().scales(x_t, t, is_null)
    v = x_1 - 0.9 * x_0
    pooled = v.unfold(2, 3, 3).unfold(3, 3, 3).sum((-1, -2)) / 3
    expected = 0.7 * (low - pooled).square().mean() + 1.3 * (fine - v).square().mean()
    torch.testing.assert_close(flow.loss, expected)
    torch.testing.assert_close(flow.stats["flow_full"], (fine - v).square().mean())


def test_the_gradient_reaches_the_source():
    x_0, x_1 = pairs()
    x_0.requires_grad_()
    flow_loss(Net(), x_0, x_1, PLAIN, dice(3)).loss.backward()
    assert x_0.grad is not None
    assert (x_0.grad.abs().amax((1, 2, 3)) > 0).all()


def test_what_is_unknown_is_not_learned_and_a_null_sample_brings_its_own_holes():
    (x_0, x_1), known = pairs(), (torch.rand(5, 1, 6, 6, generator=dice(4)) < 0.6).double()
    config = FlowConfig(null_rate=0.6, scale_weights=(0.0, 1.0))  # the fine scale alone

    def loss(target: Tensor) -> Tensor:
        class Still(Net):
            def scales(self, x_t: Tensor, t: Tensor, is_null: Tensor) -> tuple[Tensor, ...]:
                super().scales(x_t, t, is_null)
                return x_0[..., ::3, ::3] * 0, x_0 * 0  # blind, so that x_t tells it nothing

        return flow_loss(Still(), x_0, target, config, dice(3), known).loss

    torch.testing.assert_close(loss(x_1), loss(torch.where(known > 0, x_1, 17.0)))
    assert loss(x_1) != loss(torch.where(known > 0, x_1 + 0.1, x_1))


def test_with_everything_known_nothing_changes():
    x_0, x_1 = pairs()
    plain = flow_loss(Net(), x_0, x_1, PLAIN, dice(3)).loss
    torch.testing.assert_close(
        flow_loss(Net(), x_0, x_1, PLAIN, dice(3), torch.ones(5, 1, 6, 6).double()).loss, plain
    )


def test_losses_by_time_are_means_of_their_fifth():
    t, loss = torch.tensor([0.0, 0.1, 0.3, 1.0]), torch.tensor([1.0, 3.0, 5.0, 7.0])
    found = by_time("flow", loss, t)
    assert [found[f"flow_t{k}"].item() for k in (0, 1, 4)] == [2.0, 5.0, 7.0]
    assert found["flow_t2"].isnan()


# ------------------------------------------------------------------------------------------------- drawing


def straight(x: Tensor, t: Tensor, is_null: Tensor) -> Tensor:
    """Leads 3 to the right, or 1 to the left where null."""
    return torch.where(is_null, -1.0, 3.0)[:, None, None, None].expand_as(x)


@pytest.mark.parametrize(("scale", "way"), [(1.0, 3.0), (0.0, -1.0), (2.0, 7.0), (0.5, 1.0)])
@pytest.mark.parametrize("bound", [False, True])
def test_guidance_mixes_the_two_velocities(scale, way, bound):
    x_0 = torch.randn(3, 1, 2, 2, generator=dice(5))
    found = carry(straight, x_0, SampleConfig(scale, steps=3), bound=bound).x
    torch.testing.assert_close(found, x_0 + way)


def test_a_bound_velocity_is_always_asked_for_all_rows():
    rows = []

    def v(x: Tensor, t: Tensor, is_null: Tensor) -> Tensor:
        rows.append(len(x))
        return -x * torch.arange(1, 4).view(3, 1, 1, 1)

    x_0 = torch.ones(3, 1, 2, 2)
    for solver in ("euler", "dopri5"):
        carry(v, x_0, SampleConfig(2.0, steps=2, solver=solver), bound=True)
    assert set(rows) == {3}


def test_autoguidance_leads_away_from_the_weak_velocity():
    x_0 = torch.zeros(2, 1, 2, 2)
    found = carry(straight, x_0, SampleConfig(2.0, steps=1), weak=lambda x, t, is_null: torch.ones_like(x)).x
    torch.testing.assert_close(found, torch.full_like(x_0, 1 + 2 * (3 - 1)))


def test_a_sample_is_the_same_in_whatever_batch_with_adaptive_steps():
    def v(x: Tensor, t: Tensor, is_null: Tensor) -> Tensor:
        return -20 * x * (x.abs() > 0.5)

    x_0 = torch.tensor([0.1, 5.0, 0.9]).view(3, 1, 1, 1)
    how = SampleConfig(1.0, solver="dopri5")
    together = carry(v, x_0, how).x
    torch.testing.assert_close(together, torch.cat([carry(v, x[None], how).x for x in x_0]), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scale": float("inf")}, "scale must be a finite number"),
        ({"scale": float("nan")}, "scale must be a finite number"),
        ({"steps": 0}, "steps must be a whole number, 1 or more"),
        ({"steps": True}, "steps must be a whole number"),
        ({"solver": "eular"}, "unknown solver 'eular'; known: euler"),
        ({"temperature": -1.0}, "temperature must be zero or more"),
    ],
)
def test_a_way_of_drawing_that_cannot_be_is_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        SampleConfig(**settings)


def test_the_null_rate_of_the_loss_is_the_share_of_null_rows():
    net, x = Net(), torch.zeros(400, 1, 3, 3)
    flow_loss(net, x, x, FlowConfig(null_rate=0.25), dice(0))
    assert net.asked[0][2].equal(draw_null(400, 0.25, generator=dice(0)))
