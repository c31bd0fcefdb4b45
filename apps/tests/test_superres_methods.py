"""The paper's way and its two baselines, each against what its formula says of a model that is known."""

from dataclasses import dataclass

import pytest
import torch
from cf_apps.engine.flow import FlowConfig, SampleConfig
from cf_apps.superres.methods import METHODS
from torch import Tensor

EXACT = 1e-12
FLOW = FlowConfig(null_rate=0.0, sigma_min=0.0)


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pair(b: int = 3, c: int = 2, h: int = 6, w: int = 4) -> tuple[Tensor, Tensor]:
    """up and x_1, in float64."""
    return tuple(torch.randn(2, b, c, h, w, dtype=torch.float64, generator=dice(1)))


@dataclass(frozen=True)
class Answers:
    """A backbone with one scale, by a formula."""

    formula: object

    def __call__(self, x_t: Tensor, t: Tensor, is_null: Tensor | None = None) -> Tensor:
        return self.formula(x_t, t)

    def scales(self, x_t: Tensor, t: Tensor, is_null: Tensor | None = None) -> tuple[Tensor, ...]:
        return (self(x_t, t),)


def test_crossflow_shows_the_model_the_flowing_picture_and_nothing_beside_it():
    up, x_1 = pair()
    seen = []
    METHODS["crossflow"].loss(Answers(lambda x, t: seen.append(x) or x), up, x_1, 0.0, FLOW, dice())
    (x_t,) = seen
    assert x_t.shape == up.shape
    # without noise every x_t lies on the line from up to x_1
    share = ((x_t - up) * (x_1 - up)).sum((1, 2, 3)) / (x_1 - up).square().sum((1, 2, 3))
    assert torch.allclose(x_t, up + share[:, None, None, None] * (x_1 - up), atol=EXACT)


def test_crossflows_loss_is_zero_for_the_velocity_between_the_two_pictures():
    up, x_1 = pair()
    loss = METHODS["crossflow"].loss(Answers(lambda x, t: x_1 - up), up, x_1, 0.0, FLOW, dice())
    assert loss.loss < EXACT
    other = METHODS["crossflow"].loss(Answers(lambda x, t: up - x_1), up, x_1, 0.0, FLOW, dice()).loss
    assert torch.allclose(other, 4 * (x_1 - up).square().mean())


def test_source_noise_is_added_to_the_source_with_the_sigma_that_is_asked_for():
    up = torch.zeros(64, 2, 16, 16, dtype=torch.float64)
    sigma = 0.3
    # v = 0 and x_1 = up, so that the loss is the mean square of x_0 - up
    loss = METHODS["crossflow"].loss(Answers(lambda x, t: torch.zeros_like(x)), up, up, sigma, FLOW, dice())
    assert torch.allclose(loss.loss, torch.tensor(sigma**2, dtype=torch.float64), rtol=0.03)


def test_concat_flows_from_noise_and_reads_the_enlarged_picture_beside_it():
    up, x_1 = (it.repeat(40, 1, 1, 1) for it in pair())
    seen = []

    def formula(x: Tensor, t: Tensor) -> Tensor:
        seen.append((x, t))
        return torch.zeros_like(x)

    loss = METHODS["concat"].loss(Answers(formula), up, x_1, 0.7, FLOW, dice())
    x, t = seen[0]
    assert torch.equal(x[:, 2:], up)
    noise = (x[:, :2] - t[:, None, None, None] * x_1) / (1 - t[:, None, None, None])
    assert noise.mean().abs() < 0.05
    assert abs(noise.std().item() - 1) < 0.05
    assert torch.allclose(loss.loss, (x_1 - noise).square().mean())


def test_regression_answers_once_from_the_enlarged_picture_and_draws_no_number():
    up, x_1 = pair()
    seen = []
    generator = dice()
    state = generator.get_state()
    loss = METHODS["regression"].loss(
        Answers(lambda x, t: seen.append((x, t)) or x), up, x_1, 0.5, FLOW, generator
    )
    assert torch.equal(seen[0][0], up)
    assert seen[0][1].tolist() == [0.0] * 3
    assert torch.allclose(loss.loss, (up + up - x_1).square().mean())  # up + v(up) against x_1
    assert torch.equal(generator.get_state(), state)


def test_the_regression_that_fits_best_predicts_the_mean_of_what_the_picture_may_be():
    """Two sharp pictures of one small one: the best answer to both is their average, which is neither."""
    up = torch.zeros(2, 1, 4, 4, dtype=torch.float64)
    x_1 = torch.stack([torch.full((1, 4, 4), value, dtype=torch.float64) for value in (-1.0, 3.0)])
    guess = torch.zeros(1, requires_grad=True, dtype=torch.float64)
    loss = METHODS["regression"].loss(Answers(lambda x, t: x + guess), up, x_1, 0.0, FLOW, dice()).loss
    (slope,) = torch.autograd.grad(loss, guess)
    assert torch.allclose(
        slope, torch.tensor([-2.0], dtype=torch.float64)
    )  # d/dg of ((g + 1)^2 + (g - 3)^2) / 2
    with torch.no_grad():
        guess += 1.0
    loss = METHODS["regression"].loss(Answers(lambda x, t: x + guess), up, x_1, 0.0, FLOW, dice()).loss
    assert torch.autograd.grad(loss, guess)[0].abs() < EXACT


@pytest.mark.parametrize(("steps", "solver"), [(1, "euler"), (7, "heun")])
@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_crossflow_carries_the_enlarged_picture_along_the_velocity(steps, solver, temperature):
    up, v = pair()
    noise = torch.randn(up.shape, dtype=torch.float64, generator=dice(2))
    how = SampleConfig(scale=1.0, steps=steps, solver=solver, temperature=temperature)
    drawn = METHODS["crossflow"].draw(lambda x, t, n: v, up, noise, 0.2, how, "fp32")
    assert torch.allclose(drawn, up + 0.2 * temperature * noise + v, atol=EXACT)


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("solver", ["euler", "dopri5"])
def test_concat_carries_noise_towards_what_it_reads_row_by_row(solver, scale):
    up, _ = pair()
    noise = torch.randn(up.shape, dtype=torch.float64, generator=dice(2))
    how = SampleConfig(scale=scale, steps=5, solver=solver, temperature=0.5)
    # the model answers with its second half, the picture it is told
    drawn = METHODS["concat"].draw(
        lambda x, t, n: torch.cat([x[:, 2:], x[:, :2]], 1), up, noise, 9.0, how, "fp32"
    )
    assert torch.allclose(drawn, 0.5 * noise + up, atol=EXACT)


@pytest.mark.parametrize("steps", [1, 25])
def test_regression_makes_one_step_whatever_the_solver_is_set_to(steps):
    up, _ = pair()
    calls = []
    how = SampleConfig(scale=4.0, steps=steps, solver="heun", temperature=2.0)
    drawn = METHODS["regression"].draw(
        lambda x, t, n: calls.append(t) or 3 * x, up, torch.ones_like(up), 0.4, how, "fp32"
    )
    assert torch.allclose(drawn, 4 * up, atol=EXACT)
    assert len(calls) == 1
