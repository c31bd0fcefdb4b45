import math

import pytest
import torch
from cf_transformer import TDLayerNorm, TimeLerp, td_rms_norm


def gamma_by_hand(param0: float, param1: float, w: float, b: float, t: float) -> float:
    """The formula of DiMR, one channel at a time."""
    c = (4 - 8 * t) / 4
    s = 1 / (1 + math.exp(-((1 + w) * c + b)))
    return s * param0 + (1 - s) * param1


def test_gamma_is_the_formula_channel_by_channel(shaken):
    lerp = shaken(TimeLerp(2, 5, init=1.0).double())
    t = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    gamma = lerp(t)
    for n, i, d in [(0, 0, 0), (1, 1, 2), (0, 2, 4), (1, 0, 3)]:
        leaves = (leaf[n, d].item() for leaf in (lerp.param0, lerp.param1, lerp.w, lerp.b))
        assert gamma[n, i, 0, d].item() == pytest.approx(gamma_by_hand(*leaves, t[i].item()), abs=1e-14)


def test_param0_rules_at_the_source_and_param1_at_the_data():
    lerp = TimeLerp(1, 3, init=0.0)
    with torch.no_grad():
        lerp.param0.fill_(1.0)
        lerp.w.fill_(30.0)  # a sharp switch
    assert torch.allclose(lerp(torch.tensor([0.0, 0.5, 1.0]))[0, :, 0, 0], torch.tensor([1.0, 0.5, 0.0]))


def test_td_rms_norm_is_the_formula_in_float64(generator):
    x = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    gamma = torch.randn(2, 1, 5, generator=generator, dtype=torch.float64)
    expected = gamma * x / (x.square().mean(-1, keepdim=True).sqrt() + 1e-8)
    torch.testing.assert_close(td_rms_norm(x, gamma), expected, rtol=1e-14, atol=0)


def test_td_rms_norm_of_a_zero_token_is_zero_with_a_finite_gradient():
    x = torch.zeros(1, 2, 3, requires_grad=True)
    y = td_rms_norm(x, torch.ones(1, 1, 3))
    y.sum().backward()
    assert torch.equal(y, torch.zeros(1, 2, 3))
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_the_divisor_of_td_rms_norm_is_rms_plus_1e_8():
    x = torch.full((1, 1, 4), 1e-8, dtype=torch.float64)
    torch.testing.assert_close(td_rms_norm(x, torch.ones_like(x)), torch.full_like(x, 0.5))


def test_td_rms_norm_ignores_the_scale_of_its_input(generator):
    x = torch.randn(2, 3, 5, generator=generator)
    gamma = torch.randn(2, 1, 5, generator=generator)
    torch.testing.assert_close(td_rms_norm(16 * x, gamma), td_rms_norm(x, gamma))


def test_td_layer_norm_is_the_formula_in_float64(shaken, generator):
    norm = shaken(TDLayerNorm(5).double())
    x = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    t = torch.tensor([0.2, 0.9], dtype=torch.float64)
    centred = x - x.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    expected = norm.gain(t)[0] * normed + norm.shift(t)[0]
    torch.testing.assert_close(norm(x, t), expected, rtol=1e-12, atol=1e-14)


def test_norms_compute_in_fp32_for_bf16_tokens(generator):
    x = torch.randn(2, 3, 5, generator=generator).bfloat16()
    gamma = torch.randn(2, 1, 5, generator=generator)
    assert torch.equal(td_rms_norm(x, gamma), td_rms_norm(x.float(), gamma).bfloat16())
    norm, t = TDLayerNorm(5), torch.rand(2, generator=generator)
    assert torch.equal(norm(x, t), norm(x.float(), t).bfloat16())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_time_is_computed_in_fp32_under_low_precision_parameters(dtype, shaken):
    lerp = shaken(TimeLerp(1, 7, init=1.0).to(dtype))
    t = torch.rand(3)
    gamma = lerp(t)
    assert gamma.dtype == torch.float32
    assert torch.equal(gamma, lerp.float()(t))


def test_gamma_starts_constant_and_its_ends_get_different_gradients():
    lerp = TimeLerp(1, 3, init=1.0)
    t = torch.tensor([0.1, 0.4])
    gamma = lerp(t)
    assert torch.equal(gamma, torch.ones(1, 2, 1, 3))
    gamma.sum().backward()
    assert torch.equal(lerp.w.grad, torch.zeros(1, 3))
    assert torch.equal(lerp.b.grad, torch.zeros(1, 3))
    s = torch.sigmoid(1 - 2 * t).sum()
    torch.testing.assert_close(lerp.param0.grad, s.expand(1, 3))
    torch.testing.assert_close(lerp.param1.grad, (2 - s).expand(1, 3))
