import pytest
import torch
from cf_encoders.std_layer_norm import EPS, StdLayerNorm


def norm_of(width: int) -> StdLayerNorm:
    norm = StdLayerNorm(width).double()
    with torch.no_grad():
        norm.g.copy_(torch.linspace(-1, 2, width))
        norm.b.copy_(torch.linspace(0.5, -0.5, width))
    return norm


def plain(norm: StdLayerNorm, x: torch.Tensor) -> torch.Tensor:
    mean, std = x.mean(dim=-1, keepdim=True), x.std(dim=-1, keepdim=True)
    return norm.g * (x - mean) / (std + EPS) + norm.b


def test_the_norm_divides_by_the_unbiased_std_with_eps_outside():
    x = torch.tensor([[[1.0, 2.0, 6.0]]], dtype=torch.float64)
    std = ((4 + 1 + 9) / 2) ** 0.5  # deviations -2, -1, 3 over n - 1
    expected = torch.tensor([[[-2.0, -1.0, 3.0]]]).double() / (std + 1e-5)
    torch.testing.assert_close(StdLayerNorm(3).double()(x), expected)


@pytest.mark.parametrize("scale", [1.0, 1e-5, 1e4])  # where eps is as large as the std it counts
@pytest.mark.parametrize("shape", [(2, 3, 7), (1, 1, 2), (5, 1, 12)])
def test_value_and_gradients_are_those_of_the_formula(shape, scale, generator):
    norm = norm_of(shape[-1])
    x = (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    inputs = (x, norm.g, norm.b)
    torch.testing.assert_close(norm(x), plain(norm, x))
    ours = torch.autograd.grad((norm(x) * weight).sum(), inputs)
    theirs = torch.autograd.grad((plain(norm, x) * weight).sum(), inputs)
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_its_gradient_is_that_of_finite_differences(generator):
    norm = norm_of(5)
    x = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(norm, (x,))


def test_a_constant_token_gives_the_shift_and_a_finite_gradient():
    norm = norm_of(4)
    x = torch.full((1, 2, 4), 3.0, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(norm(x), norm.b.expand(1, 2, 4))
    norm(x)[0, 0, 1].backward()
    h = torch.zeros(4).double()
    h[1] = norm.g.detach()[1]
    assert x.grad is not None
    torch.testing.assert_close(x.grad[0, 0], (h - h.mean()) / EPS)


def test_backward_under_autocast_keeps_float32(generator):
    norm = norm_of(64).float()
    x = torch.randn(2, 3, 64, generator=generator, requires_grad=True)
    expected = torch.autograd.grad(norm(x).sin().sum(), (x, norm.g))
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(norm(x).sin().sum(), (x, norm.g))
    torch.testing.assert_close(found, expected)
