"""Sampling is a function of caption, model and seed; each picture is drawn as if alone."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cf_apps.engine.errors import ConfigError, RunError
from cf_apps.engine.flow import SampleConfig
from cf_apps.t2i.sample import Sampler

sys.path.insert(0, str(Path(__file__).parent))
from t2i_tiny import CAPTIONS, CPU, baseline, dice, sampler

HOW = SampleConfig(scale=2.0, steps=3, solver="midpoint")
BATCHING = 1e-4  # sums in another order


@pytest.fixture(scope="module")
def it() -> Sampler:
    return sampler()


def draw(it: Sampler, how: SampleConfig = HOW, seed: int = 0, captions=CAPTIONS, **changes) -> torch.Tensor:
    return it.draw(captions, how, dice(seed), **changes)


def test_pictures_lie_in_the_unit_interval_and_differ_by_caption(it):
    images = draw(it)
    assert images.shape == (5, 3, 16, 16)
    assert images.min() >= 0
    assert images.max() <= 1
    assert len({image.numpy().tobytes() for image in images}) == 5


def test_the_same_seed_draws_the_same_pictures_and_another_seed_others(it):
    assert torch.equal(draw(it, seed=1), draw(it, seed=1))
    assert not torch.equal(draw(it, seed=1), draw(it, seed=2))


def test_the_callers_generator_alone_decides(it):
    torch.manual_seed(1)
    first, state = draw(it), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(draw(it), first)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("solver", ["euler", "heun", "dopri5"])
def test_a_batch_draws_each_caption_as_if_alone(it, solver):
    how = replace(HOW, solver=solver, temperature=0.0)
    together = draw(it, how)
    alone = torch.cat([draw(it, how, captions=[text]) for text in CAPTIONS])
    assert torch.allclose(together, alone, atol=BATCHING if solver != "dopri5" else 1e-3)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_the_batch_size_changes_nothing(it, batch_size):
    assert torch.allclose(draw(it, batch_size=batch_size), draw(it, batch_size=128), atol=BATCHING)


def test_temperature_zero_draws_from_the_mean_whatever_the_seed(it):
    how = replace(HOW, temperature=0.0)
    assert torch.equal(draw(it, how, seed=1), draw(it, how, seed=2))
    posterior = it.model.encode_text(CAPTIONS)
    assert torch.equal(it.encode(CAPTIONS, dice(), temperature=0.0), posterior.mean)


def test_the_noise_of_x_0_grows_with_the_temperature(it):
    mean, one, two = (it.encode(CAPTIONS, dice(), temperature) for temperature in (0.0, 1.0, 2.0))
    assert torch.allclose(two - mean, 2 * (one - mean), atol=1e-5)


@pytest.mark.parametrize(
    ("variation", "sigma"),
    [("learned", 0.6), ("noise", 0.25), ("none", 0.0)],
    ids=["learned", "noise", "none"],
)
def test_temperature_scales_what_noise_the_kind_of_encoder_has(variation, sigma):
    """Learned: its own sigma (0.6 where nothing was learned yet). Noise: the fixed one. None has nothing to scale."""
    it = sampler(text_ve__variation=variation, text_ve__sigma=sigma or 0.6)
    mean, one, two = (it.encode(CAPTIONS, dice(), temperature) for temperature in (0.0, 1.0, 2.0))
    assert torch.equal(mean, it.model.encode_text(CAPTIONS).mean)
    eps = torch.randn(mean.shape, generator=dice())
    assert torch.allclose(one, mean + sigma * eps, atol=1e-5)
    assert torch.allclose(two, mean + 2 * sigma * eps, atol=1e-5)
    assert torch.allclose(draw(it, seed=1), draw(it, seed=2), atol=1e-4) == (variation == "none")


# ------------------------------------------------------------------------------------------------- one draw each


def test_with_a_generator_each_a_picture_is_the_same_in_any_batch(it):
    how = replace(HOW, solver="dopri5")
    together = it.draw(CAPTIONS, how, [dice(seed) for seed in range(5)])
    for seed in (3, 0):
        alone = it.draw([CAPTIONS[seed]], how, dice(seed))
        assert torch.allclose(together[seed : seed + 1], alone, atol=1e-3)
    assert torch.allclose(
        it.draw(CAPTIONS, how, [dice(seed) for seed in range(5)], batch_size=2), together, atol=1e-3
    )


def test_generators_of_one_seed_give_all_captions_the_same_noise(it):
    mean, x_0 = it.encode(CAPTIONS, dice(), 0.0), it.encode(CAPTIONS, [dice(7) for _ in CAPTIONS])
    noise = x_0 - mean
    std = it.model.encode_text(CAPTIONS).std
    assert torch.allclose(noise / std, (noise / std)[:1].expand_as(noise), atol=1e-5)


def test_there_is_a_generator_for_each_caption_or_one_for_all(it):
    with pytest.raises(ValueError, match="2 generators for 5 captions; pass one for each"):
        it.encode(CAPTIONS, [dice(), dice()])


# ------------------------------------------------------------------------------------------------- the field


@pytest.mark.parametrize(("scale", "is_null"), [(1.0, False), (0.0, True)])
def test_scale_one_is_the_conditional_field_and_zero_the_unconditional_one(it, scale, is_null):
    x = it.encode(CAPTIONS, dice())
    expected = x
    for step in range(4):  # Euler by hand
        t = torch.full((5,), step / 4)
        with torch.no_grad():
            expected = expected + it.model.backbone(expected, t, torch.full((5,), is_null)) / 4
    found = it.flow(x, SampleConfig(scale=scale, steps=4, solver="euler"))
    assert found.nfe == 4
    assert torch.allclose(found.x, expected, atol=BATCHING)


def test_guidance_goes_from_the_unconditional_beyond_the_conditional_field(it):
    x = it.encode(CAPTIONS, dice())
    at = {s: it.flow(x, SampleConfig(scale=s, steps=1, solver="euler")).x for s in (0.0, 1.0, 3.0)}
    assert torch.allclose(at[3.0], at[0.0] + 3 * (at[1.0] - at[0.0]), atol=BATCHING)
    assert not torch.allclose(at[3.0], at[1.0], atol=BATCHING)


def test_more_steps_come_closer_to_the_adaptive_solution(it):
    x = it.encode(CAPTIONS, dice())
    exact = it.flow(x, SampleConfig(scale=1.0, solver="dopri5")).x
    errors = [
        (it.flow(x, SampleConfig(scale=1.0, steps=n, solver="midpoint")).x - exact).norm() for n in (4, 8, 16)
    ]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]  # second order: a factor of four


def test_a_caption_longer_than_the_model_reads_is_refused_before_drawing(it):
    too_long = "a " * 11  # 11 words, <bos> and <eos>: 13 of 12 tokens
    with pytest.raises(ConfigError, match=r"caption of more than 12 tokens: 'a a a.*shorten it"):
        draw(it, captions=["a circle", too_long])
    assert len(draw(it, captions=["a " * 10])) == 1
    with pytest.raises(ConfigError) as error:
        draw(it, captions=["word " * 10_000])
    assert len(str(error.value)) < 150


# ------------------------------------------------------------------------------------------------- the baseline


@pytest.fixture(scope="module")
def rival() -> Sampler:
    return Sampler(baseline())


def test_the_baseline_starts_from_noise_that_knows_no_caption(rival):
    noise = torch.randn(5, 3, 16, 16, generator=dice(4))
    assert torch.equal(rival.encode(CAPTIONS, dice(4)), noise)
    assert torch.equal(rival.encode(["a circle"] * 5, dice(4)), noise)
    assert torch.equal(rival.encode(CAPTIONS, dice(4), 0.5), 0.5 * noise)
    assert not rival.encode(CAPTIONS, dice(4), 0.0).any()


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_the_baseline_is_guided_by_the_field_without_the_text(rival, scale):
    it, x = rival.model, rival.encode(CAPTIONS, dice())
    text = it.modules["reader"](it.language(CAPTIONS))
    found = rival.flow(x, SampleConfig(scale=scale, steps=3, solver="euler"), CAPTIONS).x
    with torch.no_grad():
        for step in range(3):
            t = torch.full((5,), step / 3)
            v_c, v_u = (
                it.backbone(x, t, torch.full((5,), null), context=text.tokens, context_mask=text.mask)
                for null in (False, True)
            )
            x = x + (v_u + scale * (v_c - v_u)) / 3
    assert torch.allclose(found, x, atol=BATCHING)


def test_the_baseline_reads_the_right_rows_in_an_adaptive_solver(rival):
    x = rival.encode(CAPTIONS, dice())
    adaptive = rival.flow(x, SampleConfig(scale=2.0, solver="dopri5"), CAPTIONS).x
    fine = rival.flow(x, SampleConfig(scale=2.0, steps=12, solver="rk4"), CAPTIONS).x
    assert torch.allclose(adaptive, fine, atol=1e-3)


def test_only_the_baseline_draws_otherwise_for_another_caption_from_the_same_noise(rival, it):
    for model, differs in ((rival, True), (it, False)):
        x = torch.randn(2, 3, 16, 16, generator=dice())
        pair = [model.flow(x, HOW, [text] * 2).x for text in ("a red circle", "a circle red")]
        assert torch.equal(*pair) != differs


def test_the_baseline_draws_each_caption_as_if_alone(rival):
    draws = [dice(seed) for seed in range(5)]
    together = rival.draw(CAPTIONS, HOW, draws)
    in_turn = rival.draw(CAPTIONS, HOW, [dice(seed) for seed in range(5)], batch_size=2)
    assert torch.allclose(in_turn, together, atol=BATCHING)
    alone = [rival.draw([text], HOW, dice(seed)) for seed, text in enumerate(CAPTIONS)]
    assert torch.allclose(together, torch.cat(alone), atol=BATCHING)


def test_without_captions_the_baseline_cannot_flow(rival):
    x = rival.encode(CAPTIONS, dice())
    with pytest.raises(
        ConfigError, match="starts from noise and reads captions on the way; between captions"
    ):
        rival.flow(x, HOW)


def test_an_unknown_solver_is_named():
    with pytest.raises(ConfigError, match="unknown solver 'eular'; known: euler, midpoint, heun"):
        SampleConfig(solver="eular")


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(RunError, match="is not a run folder"):
        Sampler.from_run(tmp_path, CPU)


def test_a_run_of_another_task_is_told_apart(tmp_path):
    sys.path.insert(0, str(Path(__file__).parent))
    from cf_apps.engine import fit
    from engine_toy import Toy, config

    fit(Toy(), config(1), tmp_path)
    with pytest.raises(RunError, match="is a run of `crossflow toy`, this is `crossflow t2i`"):
        Sampler.from_run(tmp_path, CPU)
