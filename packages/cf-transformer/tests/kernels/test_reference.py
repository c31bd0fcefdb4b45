import math

import pytest
import torch
from cf_transformer.kernels import reference


def normal(*shape: int, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=generator, dtype=dtype)


def rms_by_hand(token: list[float]) -> list[float]:
    rms = math.sqrt(math.fsum(v * v for v in token) / len(token))
    return [v / (rms + 1e-8) for v in token]


def layer_by_hand(token: list[float]) -> list[float]:
    mean = math.fsum(token) / len(token)
    variance = math.fsum((v - mean) ** 2 for v in token) / len(token)
    return [(v - mean) / math.sqrt(variance + 1e-5) for v in token]


BY_HAND = {"rms": rms_by_hand, "layer": layer_by_hand}


@pytest.mark.parametrize("norm", BY_HAND)
def test_the_norm_of_a_sum_is_the_formula_token_by_token(norm, generator):
    x, r = (normal(2, 3, 5, generator=generator) for _ in range(2))
    gamma, beta = (normal(2, 1, 5, generator=generator) for _ in range(2))
    y, s = reference.add_td_norm(x, r, gamma, beta, norm=norm)
    assert torch.equal(s, x + r)
    for i, j in [(0, 0), (0, 2), (1, 1)]:
        normed = torch.tensor(BY_HAND[norm](s[i, j].tolist()), dtype=torch.float64)
        torch.testing.assert_close(y[i, j], normed * gamma[i, 0] + beta[i, 0], rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("norm", BY_HAND)
def test_the_shift_and_the_residual_may_be_left_out(norm, generator):
    x, gamma = normal(2, 3, 5, generator=generator), normal(1, 1, 5, generator=generator)
    y, s = reference.add_td_norm(x, None, gamma, None, norm=norm)
    assert s is x
    zero = torch.zeros_like(x)
    expected = reference.add_td_norm(x, zero, gamma.expand(2, 1, 5), zero[:, :1], norm=norm)[0]
    torch.testing.assert_close(y, expected, rtol=1e-14, atol=0)


def test_an_unknown_norm_lists_the_known():
    with pytest.raises(ValueError, match="unknown norm 'batch'; known: rms, layer"):
        reference.known_norm("batch")


@pytest.mark.parametrize("norm", BY_HAND)
def test_the_sum_is_rounded_before_the_norm_and_the_norm_is_taken_in_fp32(norm, generator):
    x, r = (normal(2, 3, 5, generator=generator).bfloat16() for _ in range(2))
    gamma, beta = (normal(2, 1, 5, generator=generator).float() for _ in range(2))
    y, s = reference.add_td_norm(x, r, gamma, beta, norm=norm)
    assert torch.equal(s, (x.double() + r.double()).bfloat16())
    assert torch.equal(y, reference.add_td_norm(s.float(), None, gamma, beta, norm=norm)[0].bfloat16())


def test_a_residual_of_another_precision_leaves_x_in_its_own(generator):
    x, r = normal(1, 2, 3, generator=generator).float(), normal(1, 2, 3, generator=generator).bfloat16()
    y, s = reference.add_td_norm(x, r, torch.ones(1, 1, 3), None, norm="rms")
    assert y.dtype == s.dtype == torch.float32
    assert torch.equal(s, x + r.float())


def test_fp64_tokens_stay_fp64_under_a_gain_in_fp32(generator):
    x, gamma = normal(1, 2, 3, generator=generator), torch.ones(1, 1, 3)
    y, _ = reference.add_td_norm(x, None, gamma, None, norm="rms")
    torch.testing.assert_close(
        y[0, 1], torch.tensor(rms_by_hand(x[0, 1].tolist()), dtype=x.dtype), rtol=1e-13, atol=0
    )


def test_time_lerps_are_the_formula_channel_by_channel(generator):
    leaves = [tuple(normal(m, d, generator=generator) for _ in range(4)) for m, d in [(2, 5), (1, 3)]]
    t = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    gammas = reference.time_lerps(leaves, t)
    assert [tuple(gamma.shape) for gamma in gammas] == [(2, 3, 1, 5), (1, 3, 1, 3)]
    for i, n, sample, d in [(0, 0, 0, 0), (0, 1, 1, 4), (0, 1, 2, 2), (1, 0, 1, 2)]:
        param0, param1, w, b = (leaf[n, d].item() for leaf in leaves[i])
        s = 1 / (1 + math.exp(-((1 + w) * (1 - 2 * t[sample].item()) + b)))
        assert gammas[i][n, sample, 0, d].item() == pytest.approx(s * param0 + (1 - s) * param1, abs=1e-14)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_time_lerps_of_low_precision_leaves_are_taken_in_fp32(dtype, generator):
    leaves = tuple(normal(2, 3, generator=generator).to(dtype) for _ in range(4))
    t = torch.rand(4, generator=generator)
    (gamma,) = reference.time_lerps([leaves], t)
    assert gamma.dtype == torch.float32
    assert torch.equal(gamma, reference.time_lerps([tuple(leaf.float() for leaf in leaves)], t)[0])


def test_geglu_gates_by_the_first_half_with_the_exact_gelu(generator):
    ab = normal(2, 3, 8, generator=generator)
    y = reference.geglu(ab)
    assert y.shape == (2, 3, 4)
    for i, j, k in [(0, 0, 0), (1, 2, 3)]:
        a, v = ab[i, j, k].item(), ab[i, j, 4 + k].item()
        expected = 0.5 * a * (1 + math.erf(a / math.sqrt(2))) * v
        assert y[i, j, k].item() == pytest.approx(expected, abs=1e-15)


def test_the_norm_of_maps_is_the_norm_of_their_concatenation(generator):
    maps = [scale * normal(2, 3, 4, generator=generator) for scale in (0.1, 1.0, 10.0)]
    gamma, beta = normal(2, 1, 12, generator=generator), normal(1, 1, 12, generator=generator)
    y = reference.concat_td_norm(maps, gamma, beta)
    token = [value for x in maps for value in x[1, 2].tolist()]
    expected = torch.tensor(layer_by_hand(token), dtype=torch.float64) * gamma[1, 0] + beta[0, 0]
    torch.testing.assert_close(y[1, 2], expected, rtol=1e-13, atol=1e-14)


def test_the_norm_of_bf16_maps_is_taken_in_fp32(generator):
    maps = [normal(2, 3, 4, generator=generator).bfloat16() for _ in range(3)]
    gamma, beta = (normal(2, 1, 12, generator=generator).float() for _ in range(2))
    wide = reference.concat_td_norm([x.float() for x in maps], gamma, beta)
    assert torch.equal(reference.concat_td_norm(maps, gamma, beta), wide.bfloat16())
