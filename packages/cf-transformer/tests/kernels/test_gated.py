import pytest
import torch
from cf_transformer import kernels
from torch import Tensor

pytestmark = [pytest.mark.interpreter, pytest.mark.usefixtures("in_triton")]

SHAPES = [
    (1, 1, 16),
    (2, 2, 48),
    (1, 15, 60),
    (2, 17, 16),
    (1, 33, 48),
    (2, 2, 1100),
]  # the last in two programs


def formula(ab: Tensor) -> Tensor:
    a, v = ab[..., : ab.shape[-1] // 2], ab[..., ab.shape[-1] // 2 :]
    return 0.5 * a * (1 + torch.erf(a / 2**0.5)) * v


def errors(ab: Tensor, dy: Tensor, norm_error) -> list[float]:
    """Of the result and of the gradient."""
    ours, exact = ab.detach().requires_grad_(), ab.detach().to(torch.float64, copy=True).requires_grad_()
    y, expected = kernels.geglu(ours), formula(exact)
    (grad,) = torch.autograd.grad(y, ours, dy)
    (exact_grad,) = torch.autograd.grad(expected, exact, dy.double())
    assert y.dtype == grad.dtype == ab.dtype
    return [norm_error(y, expected), norm_error(grad, exact_grad)]


def random(*shape: int, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize(("b", "n", "f"), SHAPES)
def test_the_kernels_are_the_formula_at_every_shape(
    b, n, f, generator, guarded, in_nan, norm_error, tolerance
):
    ab = in_nan(2 * random(b, n, 2 * f, generator=generator))
    dy = in_nan(random(b, n, f, generator=generator))
    assert max(errors(ab, dy, norm_error)) < tolerance[torch.float64]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_kernels_are_the_formula_in_every_precision(dtype, generator, guarded, norm_error, tolerance):
    ab, dy = (random(2, 17, width, generator=generator, dtype=dtype) for width in (120, 60))
    assert max(errors(ab, dy, norm_error)) < tolerance[dtype]


@pytest.mark.parametrize("shape", [(10,), (3, 10), (2, 3, 2, 10)])
def test_any_number_of_axes_may_come_before_the_channels(shape, generator, norm_error, tolerance):
    ab = random(*shape, generator=generator)
    dy = random(*shape[:-1], shape[-1] // 2, generator=generator)
    assert max(errors(ab, dy, norm_error)) < tolerance[torch.float64]


def test_a_gradient_without_memory_of_its_own_is_read_right(generator, norm_error, tolerance):
    dy = torch.ones((), dtype=torch.float64).expand(2, 3, 5)
    assert max(errors(random(2, 3, 10, generator=generator), dy, norm_error)) < tolerance[torch.float64]


def test_far_from_zero_the_gate_is_open_or_shut():
    ab = torch.tensor([[[-40.0, 0.0, 40.0, 2.0, 3.0, 4.0]]], dtype=torch.float64, requires_grad=True)
    y = kernels.geglu(ab)
    (grad,) = torch.autograd.grad(y.sum(), ab)
    assert y.tolist() == [[[0.0, 0.0, 160.0]]]
    assert grad.tolist() == [[[0.0, 1.5, 4.0, 0.0, 0.0, 40.0]]]


def test_the_gradient_is_a_finite_difference(generator):
    ab = random(2, 3, 10, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(kernels.geglu, [ab], fast_mode=True)


def test_what_the_kernels_cannot_take_is_named(generator):
    ab = random(2, 3, 10, generator=generator)
    for spoiled, complaint in [
        (ab[..., :9], "9 channels cannot be halved"),
        (ab[..., ::5], "the last axis of ab has stride 5, not 1"),
        (ab[:0], r"there is nothing in a shape of \(0, 3, 10\)"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            kernels.geglu(spoiled)
