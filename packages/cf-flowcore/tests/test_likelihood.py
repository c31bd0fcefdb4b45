"""ln p against densities that are known, and against its own definition."""

import math
import sys
from pathlib import Path as Folder

import pytest
import torch
from cf_flowcore import CondOT, bits_per_dim, exact_velocity, log_prob, sample_with_log_prob
from cf_flowcore.divergence import exact_divergence, hutchinson_divergence
from cf_flowcore.oracle import log_density
from jaxtyping import TypeCheckError

sys.path.insert(0, str(Folder(__file__).parent))
from gaussian_world import PATHS, GaussianWorld

TIGHT = {"rtol": 1e-8, "atol": 1e-8}
EXACTLY = {"divergence": "exact", **TIGHT}


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=dice(seed), dtype=torch.float64)


def network(d: int, seed: int = 0) -> torch.nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        act = torch.nn.Tanh
        return torch.nn.Sequential(
            torch.nn.Linear(d + 1, 16), act(), torch.nn.Linear(16, 16), act(), torch.nn.Linear(16, d)
        ).double()


def field(net):
    return lambda x, t: net(torch.cat([x.flatten(1), t[:, None]], 1)).reshape(x.shape)


def jacobian_trace(v, x, t):
    """By torch.func, one sample at a time."""
    traces = []
    for row, time in zip(x, t, strict=True):
        jacobian = torch.func.jacrev(lambda r, time=time: v(r[None], time[None])[0].flatten())(row)
        traces.append(jacobian.reshape(row.numel(), row.numel()).trace())
    return torch.stack(traces)


# --------------------------------------------------------------------------------------------- the divergence


@pytest.mark.parametrize(
    "shape", [(5, 3), (4, 2, 3, 3), (2, 70), (6, 1)]
)  # 70: more rows than go in one call
def test_the_exact_divergence_is_the_trace_of_the_jacobian(shape):
    x, t = numbers(*shape).requires_grad_(), torch.linspace(0, 1, shape[0], dtype=torch.float64)
    v = field(network(x[0].numel()))
    torch.testing.assert_close(exact_divergence(v(x, t), x)[:, 0], jacobian_trace(v, x.detach(), t))


def test_all_unit_vectors_as_probes_give_the_exact_divergence():
    x, t = numbers(3, 4).requires_grad_(), torch.full((3,), 0.3, dtype=torch.float64)
    v = field(network(4))
    units = torch.eye(4, dtype=torch.float64)[:, None].expand(4, 3, 4)
    columns = hutchinson_divergence(units)(v(x, t), x)
    torch.testing.assert_close(columns.sum(1), jacobian_trace(v, x.detach(), t))


@pytest.mark.parametrize("probe", ["rademacher", "gaussian"])
def test_hutchinsons_estimate_is_unbiased_and_its_error_is_reported(probe):
    x = numbers(6, 5)
    v = field(network(5))
    exact = log_prob(v, x, **EXACTLY)
    found = log_prob(v, x, probes=400, probe=probe, generator=dice(), method="rk4", steps=20)
    assert ((found.log_p - exact.log_p).abs() < 4 * found.probe_std + 1e-5).all()
    one = torch.stack(
        [
            log_prob(v, x, probes=1, probe=probe, generator=dice(s), method="rk4", steps=8).log_p
            for s in range(150)
        ]
    )
    reported = found.probe_std * math.sqrt(400)
    assert (one.std(0) / reported).log().abs().max() < math.log(1.35)  # 150 draws tell a deviation to 6 %


def test_the_probe_error_is_zero_where_there_is_none_and_unknown_for_one_probe():
    x, v = numbers(2, 3), field(network(3))
    assert (log_prob(v, x, divergence="exact", method="euler", steps=2).probe_std == 0).all()
    assert log_prob(v, x, generator=dice(), method="euler", steps=2).probe_std.isnan().all()


def test_probes_come_from_the_generator_and_stay_for_the_whole_solve():
    x, v = numbers(4, 3), field(network(3))
    first, again, other = (log_prob(v, x, generator=dice(s)) for s in (1, 1, 2))
    assert torch.equal(first.log_p, again.log_p)
    assert not torch.equal(first.log_p, other.log_p)
    assert first.nfe < 150  # fresh probes at each call would look like noise and drive the steps to nothing


def test_a_field_that_does_not_look_at_x_has_no_divergence():
    x, shift = numbers(3, 2), torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    for v in (lambda x, t: torch.ones_like(x), lambda x, t: shift.expand(len(x), 2)):
        for divergence in ("exact", "hutchinson"):
            found = log_prob(v, x, divergence=divergence, method="euler", steps=4)
            normal = torch.distributions.Normal(0.0, 1.0).log_prob(x - 1).sum(1)
            torch.testing.assert_close(found.log_p, normal)


# ------------------------------------------------------------------------------------------- known densities


def test_a_linear_flow_has_the_density_of_its_matrix_exponential():
    a = 0.7 * numbers(3, 3, seed=4)
    x_1 = numbers(5, 3)
    found = log_prob(lambda x, t: x @ a.T, x_1, **EXACTLY)
    x_0 = x_1 @ torch.linalg.matrix_exp(-a).T
    torch.testing.assert_close(found.x, x_0, rtol=1e-6, atol=1e-6)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(x_0).sum(1)
    torch.testing.assert_close(found.log_p, normal - a.trace(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["condot", "affine", "cosine"])
@pytest.mark.parametrize("shape", [(6, 2), (4, 1, 2, 2)])
def test_the_flow_from_gaussian_to_gaussian_has_the_gaussians_density(name, shape):
    world, t_1 = GaussianWorld(PATHS[name]), 0.9
    x = numbers(*shape)
    a, b, _, _ = world.path.coefficients(torch.full((1,), t_1, dtype=torch.float64))
    wanted = torch.distributions.Normal(a * world.mean, torch.sqrt(a**2 * world.std**2 + b**2))
    found = log_prob(world.velocity, x, t_1=t_1, **EXACTLY)
    torch.testing.assert_close(found.log_p, wanted.log_prob(x).flatten(1).sum(1), rtol=1e-5, atol=1e-5)


def test_the_flow_to_finite_data_has_the_density_of_the_mixture():
    path, data = CondOT(sigma_min=0.3, gaussian_source=True), 1.5 * numbers(4, 2, seed=7)
    x = numbers(9, 2)
    found = log_prob(lambda x, t: exact_velocity(x, t, data, path=path), x, **EXACTLY)
    end = torch.ones(9, dtype=torch.float64)
    torch.testing.assert_close(found.log_p, log_density(x, end, data, path=path), rtol=1e-5, atol=1e-5)


def test_diffusion_paths_start_from_almost_noise_and_the_source_density_can_say_so():
    world = GaussianWorld(PATHS["ve"])
    t_1 = 0.95
    a, b, _, _ = world.path.coefficients(torch.tensor([0.0, t_1], dtype=torch.float64))
    std = torch.sqrt(a**2 * world.std**2 + b**2)
    start, end = (torch.distributions.Normal(a[i] * world.mean, std[i]) for i in (0, 1))
    x = numbers(5, 2)
    found = log_prob(world.velocity, x, log_p_0=lambda x: start.log_prob(x).sum(1), t_1=t_1, **EXACTLY)
    torch.testing.assert_close(found.log_p, end.log_prob(x).sum(1), rtol=1e-5, atol=1e-5)


def test_the_density_of_a_random_network_integrates_to_one():
    line = torch.linspace(-7, 7, 81, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    p = log_prob(field(network(2, seed=3)), grid, divergence="exact", method="rk4", steps=16).log_p.exp()
    assert torch.trapezoid(torch.trapezoid(p.reshape(81, 81), line), line).item() == pytest.approx(
        1.0, abs=1e-3
    )


# --------------------------------------------------------------------------------- while sampling, and gradients


def test_ln_p_while_sampling_is_ln_p_of_the_sample():
    x_0, v = numbers(6, 3), field(network(3))
    sampled = sample_with_log_prob(v, x_0, **EXACTLY)
    back = log_prob(v, sampled.x, **EXACTLY)
    torch.testing.assert_close(sampled.log_p, back.log_p, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(back.x, x_0, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_gradients_by_the_sample_and_by_the_parameters_are_those_of_finite_differences(divergence):
    net, x = network(2), numbers(3, 2)
    weight = net[0].weight

    def total(x):
        how = {"divergence": divergence, "generator": dice(), "method": "rk4", "steps": 6}
        return log_prob(field(net), x, grad="direct", **how).log_p.sum()

    x.requires_grad_()
    by_x, by_weight = torch.autograd.grad(total(x), (x, weight))
    h = 1e-5
    for tensor, gradient in ((x, by_x), (weight, by_weight)):
        for place in ((0, 0), (1, 1)):
            with torch.no_grad():
                values = []
                for step in (h, -2 * h):
                    tensor[place] += step
                    values.append(total(x.detach()).item())
                tensor[place] += h
            assert gradient[place].item() == pytest.approx(
                (values[0] - values[1]) / (2 * h), rel=1e-5, abs=1e-7
            )


def test_without_grad_nothing_is_kept_for_backward():
    x, net = numbers(2, 2).requires_grad_(), network(2)
    assert not log_prob(field(net), x, method="euler", steps=2).log_p.requires_grad
    assert log_prob(field(net), x, method="euler", steps=2, grad="direct").log_p.requires_grad


def test_a_bfloat16_state_has_a_float32_density():
    x = numbers(3, 2).bfloat16()
    found = log_prob(lambda x, t: -x, x, method="rk4", steps=8, divergence="exact")
    assert found.log_p.dtype == torch.float32
    assert found.x.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"divergence": "skilling"}, "unknown divergence 'skilling'; known: exact, hutchinson"),
        ({"probes": 0}, "probes must be at least 1, got 0"),
        ({"probe": "uniform"}, "unknown kind of probe 'uniform'; known: rademacher, gaussian"),
        ({"method": "eular"}, "unknown solver 'eular'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        log_prob(lambda x, t: x, numbers(2, 2), **options)


# --------------------------------------------------------------------------------------------- bits per dimension


def still(x, t):
    return torch.zeros_like(x)


def test_the_bits_of_one_dimension_tend_to_the_mass_of_each_bin():
    pixels = torch.arange(256, dtype=torch.uint8)[:, None]
    found = bits_per_dim(
        still, pixels, importance_samples=400, divergence="exact", method="euler", steps=1, generator=dice()
    )
    edges = torch.linspace(-1, 1, 257, dtype=torch.float64)
    mass = torch.distributions.Normal(0.0, 1.0).cdf(edges).diff()
    torch.testing.assert_close(2.0 ** -found.bits.double(), mass, rtol=1e-3, atol=0)
    assert found.nfe == 400


@pytest.mark.parametrize(("value_range", "low", "high", "bits"), [("-1..1", -1, 1, 8.0), ("0..1", 0, 1, 8.0)])
def test_a_uniform_density_over_the_range_costs_all_eight_bits(value_range, low, high, bits):
    pixels = torch.randint(256, (3, 2, 4), generator=dice(), dtype=torch.uint8)

    def uniform_density(y):
        assert ((y >= low) & (y < high)).all()
        return -torch.log(torch.full((len(y),), float(high - low))) * y[0].numel()

    found = bits_per_dim(
        still, pixels, value_range=value_range, log_p_0=uniform_density, method="euler", steps=1
    )
    torch.testing.assert_close(found.bits, torch.full((3,), bits))


def test_more_importance_samples_tighten_the_bound():
    pixels = torch.randint(100, 156, (64, 3), generator=dice(), dtype=torch.uint8)

    def narrow(y):  # a density that changes within one bin, so that one u is a loose bound
        return torch.distributions.Normal(0.0, 0.003).log_prob(y).sum(1)

    bits = [
        bits_per_dim(
            still, pixels, importance_samples=k, log_p_0=narrow, method="euler", steps=1, generator=dice(),
            divergence="exact",
        ).bits.mean()
        for k in (1, 4, 32)
    ]  # fmt: skip
    assert bits[0] > bits[1] > bits[2]


def test_the_bits_of_every_draw_are_those_of_one_draw_each():
    pixels = torch.randint(256, (5, 3), generator=dice(), dtype=torch.uint8)
    how = {"divergence": "exact", "method": "euler", "steps": 1}
    found = bits_per_dim(still, pixels, importance_samples=4, generator=dice(), **how)
    alone = dice()
    for each in found.bits_of_each:
        torch.testing.assert_close(bits_per_dim(still, pixels, generator=alone, **how).bits, each)
    mean_p = (2.0 ** (-found.bits_of_each.double() * 3)).mean(0)  # p of a pixel triple, up to the scale of y
    torch.testing.assert_close(-torch.log2(mean_p) / 3, found.bits.double(), rtol=1e-5, atol=0)


def test_only_bytes_have_bits():
    with pytest.raises((ValueError, TypeCheckError)):
        bits_per_dim(still, torch.zeros(2, 3))
    with pytest.raises(ValueError, match="importance_samples must be at least 1, got 0"):
        bits_per_dim(still, torch.zeros(2, 3, dtype=torch.uint8), importance_samples=0)
    with pytest.raises(ValueError, match=r"unknown value_range '0\.\.255'; known: -1\.\.1, 0\.\.1"):
        bits_per_dim(still, torch.zeros(2, 3, dtype=torch.uint8), value_range="0..255")
