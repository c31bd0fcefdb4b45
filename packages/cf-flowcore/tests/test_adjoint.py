"""The adjoint against the gradient of the steps, closed forms, and torchdiffeq."""

import math

import pytest
import torch
import torchdiffeq
from cf_flowcore import solve, solve_adjoint

TIGHT = {"rtol": 1e-9, "atol": 1e-9}


def start(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Net(torch.nn.Module):
    def __init__(self, d: int = 2) -> None:
        super().__init__()
        self.a, self.b = torch.nn.Linear(d + 1, 8), torch.nn.Linear(8, d)
        self.unused = torch.nn.Parameter(torch.ones(3))
        self.frozen = torch.nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, x, t):
        inside = torch.tanh(self.a(torch.cat([x.flatten(1), t[:, None]], 1)))
        return self.frozen * self.b(inside).reshape(x.shape)


def net(d: int = 2) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net(d).double()


def gradients(end, x_0, module):
    trained = [p for p in module.parameters() if p.requires_grad]
    loss = (end * torch.arange(end.numel(), dtype=end.dtype).reshape(end.shape)).sum()
    return torch.autograd.grad(loss, [x_0, *trained], allow_unused=True)


@pytest.mark.parametrize("direction", [(0.0, 1.0), (1.0, 0.0)], ids=["forward", "backward"])
@pytest.mark.parametrize("shape", [(4, 2), (3, 1, 2, 2)])
def test_it_is_the_gradient_of_the_exact_flow(shape, direction):
    v, x_0 = net(math.prod(shape[1:])), start(*shape).requires_grad_()
    t_0, t_1 = direction
    direct = gradients(solve(v, x_0, t_0=t_0, t_1=t_1, grad="direct", **TIGHT).x, x_0, v)
    adjoint = gradients(solve_adjoint(v, x_0, t_0=t_0, t_1=t_1, **TIGHT), x_0, v)
    for a, b in zip(adjoint, direct, strict=True):
        if b is None:  # the parameter that v never looks at
            assert (a == 0).all()
        else:
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_it_agrees_with_torchdiffeqs():
    v, x_0 = net(), start(4, 2).requires_grad_()
    ours = gradients(solve_adjoint(v, x_0, **TIGHT), x_0, v)

    class TimeFirst(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.v = v

        def forward(self, t, x):
            return v(x, t.expand(len(x)))

    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    states = torchdiffeq.odeint_adjoint(TimeFirst(), x_0, ends, rtol=1e-9, atol=1e-9)
    theirs = gradients(states[-1], x_0, v)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, rtol=1e-6, atol=1e-7)


def test_of_a_linear_flow_it_is_the_closed_form():
    # x' = k x: x(1) = e^k x_0, d/dk = e^k x_0, d/dx_0 = e^k
    k, x_0 = torch.tensor(0.7, dtype=torch.float64, requires_grad=True), start(5, 1).requires_grad_()
    end = solve_adjoint(lambda x, t: k * x, x_0, [k], **TIGHT)
    by_k, by_x = torch.autograd.grad(end.sum(), (k, x_0))
    torch.testing.assert_close(by_k, math.exp(0.7) * x_0.detach().sum())
    torch.testing.assert_close(by_x, torch.full_like(x_0, math.exp(0.7)))


def test_fixed_steps_and_grids_are_taken_backwards():
    v, x_0 = net(), start(4, 2).requires_grad_()
    exact = gradients(solve(v, x_0, grad="direct", **TIGHT).x, x_0, v)
    for how in ({"steps": 100}, {"grid": [(i / 100) ** 1.5 for i in range(101)]}):
        found = gradients(solve_adjoint(v, x_0, method="rk4", **how), x_0, v)
        torch.testing.assert_close(found[0], exact[0], rtol=1e-6, atol=1e-8)


def test_the_end_is_that_of_solve():
    v, x_0 = net(), start(4, 2)
    assert torch.equal(solve_adjoint(v, x_0), solve(v, x_0).x)


def test_memory_does_not_grow_with_the_steps():
    v, x_0 = net(), start(4, 2).requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        solve_adjoint(v, x_0, method="rk4", steps=200)
    trained = sum(p.numel() for p in v.parameters() if p.requires_grad)
    assert sum(saved) == x_0.numel() + trained


def test_a_bfloat16_state_has_bfloat16_gradients():
    x_0 = start(3, 2).bfloat16().requires_grad_()
    (gradient,) = torch.autograd.grad(solve_adjoint(lambda x, t: -x, x_0, ()).sum(), x_0)
    assert gradient.dtype == torch.bfloat16
    torch.testing.assert_close(
        gradient.double(), torch.full((3, 2), math.exp(-1)).double(), rtol=0.01, atol=0
    )


def test_a_function_without_params_is_refused():
    with pytest.raises(ValueError, match=r"needs params=, the tensors that v depends on"):
        solve_adjoint(lambda x, t: x, start(2, 2))
