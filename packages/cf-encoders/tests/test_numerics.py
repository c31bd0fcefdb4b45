import torch
from cf_encoders.numerics import clamp_keeping_gradient, widen


def test_the_clamp_has_the_value_of_a_clamp_and_the_gradient_of_the_identity():
    x = torch.tensor([-5.0, 0.3, 7.0], dtype=torch.float64, requires_grad=True)
    y = clamp_keeping_gradient(x, -1.0, 2.0)
    y.sum().backward()
    torch.testing.assert_close(y.detach(), torch.tensor([-1.0, 0.3, 2.0], dtype=torch.float64))
    torch.testing.assert_close(x.grad, torch.ones(3, dtype=torch.float64))


def test_halves_become_float32_and_wider_types_stay():
    kinds = {torch.bfloat16: torch.float32, torch.float16: torch.float32, torch.float64: torch.float64}
    for before, after in kinds.items():
        assert widen(torch.zeros(3, dtype=before)).dtype == after
