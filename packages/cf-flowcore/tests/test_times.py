import math

import pytest
import torch
from cf_flowcore import (
    LogitNormal,
    Mixture,
    Mode,
    Power,
    Shifted,
    Stratified,
    Uniform,
    logit_normal,
    resolution_factor,
    shift,
    uniform,
)
from scipy import stats

N = 20_000
KS_1_PERCENT = 1.63 / math.sqrt(N)  # Kolmogorov's bound; seeds are fixed, so a pass is a pass

LAWS = {
    "uniform": (Uniform(), stats.uniform()),
    "a part": (Uniform(0.2, 0.7), stats.uniform(0.2, 0.5)),
    "power 3": (Power(3.0), stats.beta(1 / 3, 1)),  # u^k has density t^(1/k - 1)/k
    "power 1/2": (Power(0.5), stats.beta(2, 1)),
}
MIXTURE = Mixture(Power(3.0), LogitNormal(0.5, 0.8), weight=0.3)
MODES = [Mode(), Mode(0.5), Mode(-0.6)]
SHIFTED = [Shifted(Uniform(), 3.0), Shifted(LogitNormal(), 0.4)]
EVERY = [*(law for law, _ in LAWS.values()), LogitNormal(), LogitNormal(-0.7, 1.4), MIXTURE, *MODES, *SHIFTED]


def empirical_distance(t, cdf):
    """Kolmogorov's distance between draws and a distribution function."""
    return stats.kstest(t.double().numpy(), cdf).statistic


@pytest.mark.parametrize(("law", "reference"), LAWS.values(), ids=LAWS)
def test_draws_and_density_are_those_of_the_reference_law(law, reference, generator):
    assert empirical_distance(law(N, generator=generator), reference.cdf) < KS_1_PERCENT
    t = torch.linspace(0.21, 0.69, 11, dtype=torch.float64)
    torch.testing.assert_close(law.log_density(t), torch.from_numpy(reference.logpdf(t.numpy())))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.7, 1.4)])
def test_the_logit_of_a_logit_normal_draw_is_normal(mean, std, generator):
    t = LogitNormal(mean, std)(N, generator=generator)
    assert empirical_distance(torch.logit(t.double()), stats.norm(mean, std).cdf) < KS_1_PERCENT


def test_a_mixture_draws_each_law_with_its_weight(generator):
    law = Mixture(Uniform(0.0, 0.25), Uniform(0.5, 1.0), weight=0.3)
    t = law(N, generator=generator)
    assert abs((t < 0.25).double().mean() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / N)
    assert not ((t > 0.25) & (t < 0.5)).any()


@pytest.mark.parametrize("scale", [1.29, 0.5, -0.6])
def test_mode_draws_are_sd3s_noise_levels_turned_round(scale):
    u = torch.linspace(0, 1, 11, dtype=torch.float64)
    noise_level = 1 - u - scale * (torch.cos(torch.pi / 2 * u) ** 2 - 1 + u)  # Esser et al. 2024, eq. 20
    torch.testing.assert_close(Mode(scale).from_uniform(u), 1 - noise_level)
    assert (Mode(scale).from_uniform(u).diff() > 0).all()


def test_a_shift_keeps_the_ends_moves_towards_the_source_and_is_undone_by_its_inverse():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    shifted = shift(t, 3.0)
    assert (shifted[0], shifted[-1]) == (0.0, 1.0)
    assert (shifted[1:-1] < t[1:-1]).all()
    torch.testing.assert_close(shift(shifted, 1 / 3.0), t)
    s = 1 - t  # as the public schedulers write it, for noise levels
    torch.testing.assert_close(1 - shifted, 3.0 * s / (1 + 2.0 * s))
    assert torch.equal(shift(t, 1.0), t)


def test_the_resolution_factor_is_the_root_of_the_ratio_of_pixels():
    assert resolution_factor(1024 * 1024, 256 * 256) == 4.0
    with pytest.raises(ValueError, match="got 0 and 4"):
        resolution_factor(0, 4)


@pytest.mark.parametrize("law", EVERY, ids=str)
def test_densities_integrate_to_one(law):
    # on the logit scale, where the singularities of Power(3) at 0 vanish
    z = torch.linspace(-40.0, 40.0, 200_001, dtype=torch.float64)
    t = torch.sigmoid(z).clamp(1e-300, 1 - 1e-16)
    integral = torch.trapezoid(torch.exp(law.log_density(t)) * t * (1 - t), z)
    assert integral == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("law", EVERY, ids=str)
def test_draws_have_the_density_the_law_claims(law, generator):
    # E[t^2] by draws against the integral of t^2 p(t)
    z = torch.linspace(-40.0, 40.0, 200_001, dtype=torch.float64)
    t = torch.sigmoid(z)
    t = t.clamp(1e-300, 1 - 1e-16)
    moment = torch.trapezoid(t**2 * torch.exp(law.log_density(t)) * t * (1 - t), z)
    assert law(N, generator=generator).double().square().mean() == pytest.approx(float(moment), abs=0.01)


@pytest.mark.parametrize("law", EVERY, ids=str)
@pytest.mark.parametrize("b", [1, 7, 64])
def test_stratified_draws_put_one_time_in_each_bth_of_the_law(law, b, generator):
    t = Stratified(law)(b, generator=generator).sort().values
    edges = torch.arange(b + 1) / b
    if not isinstance(law, Mixture):
        low, high = law.from_uniform(edges[:-1]), law.from_uniform(edges[1:])
        assert ((low - 1e-6 <= t) & (t <= high + 1e-6)).all()
    assert t.shape == (b,)


def test_a_stratified_mixture_gives_each_law_its_exact_share(generator):
    law = Stratified(Mixture(Uniform(0.0, 0.25), Uniform(0.5, 1.0), weight=0.25))
    assert [int((law(64, generator=generator) < 0.3).sum()) for _ in range(5)] == [16] * 5


def test_stratified_draws_come_in_random_order_and_follow_the_law(generator):
    t = torch.stack([Stratified(Power(3.0))(4, generator=generator) for _ in range(N // 4)])
    assert empirical_distance(t[:, 0], stats.beta(1 / 3, 1).cdf) < 2 * KS_1_PERCENT  # N / 4 draws
    assert t.flatten().log().mean() == pytest.approx(-3.0, abs=0.02)  # E[ln u^3]


@pytest.mark.parametrize(
    "law", [*EVERY, LogitNormal(40.0, 1.0), LogitNormal(-40.0, 1.0), Stratified(Power(30.0))]
)
def test_times_are_float32_and_strictly_inside_the_unit_interval(law, generator):
    t = law(100_000, generator=generator)
    assert t.dtype == torch.float32
    assert (t > 0.0).all()
    assert (t < 1.0).all()
    assert torch.isfinite(law.log_density(t)).all()


@pytest.mark.parametrize("u", [0.0, 1.0 - 2.0**-24])
@pytest.mark.parametrize("law", EVERY, ids=str)
def test_the_extreme_uniform_numbers_give_times_inside(law, u, monkeypatch):
    monkeypatch.setattr("cf_flowcore.times.uniform_numbers", lambda b, **_: torch.full((b,), u))
    assert 0.0 < law(1) < 1.0


def test_the_same_generator_gives_the_same_times_and_the_global_one_is_untouched():
    before = torch.get_rng_state()
    for law in [uniform, logit_normal, Stratified(MIXTURE)]:
        a, b = (law(5, generator=torch.Generator().manual_seed(3)) for _ in range(2))
        assert torch.equal(a, b)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogitNormal(std=0.0), "std > 0, got 0.0"),
        (lambda: Power(exponent=-1.0), "exponent > 0, got -1.0"),
        (lambda: Uniform(0.5, 0.5), "low=0.5, high=0.5"),
        (lambda: Mode(2.0), "scale <= 1.7519, got 2.0"),
        (lambda: Shifted(uniform, 0.0), "must be positive, got 0.0"),
        (lambda: Mixture(uniform, logit_normal, weight=1.0), "weight < 1, got 1.0"),
    ],
)
def test_impossible_laws_are_refused_by_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()
