"""Gradients of a solve without keeping its steps: the adjoint ODE, solved back from the end.

    a(t) = dL/dx(t),    a' = -a^T dv/dx,    dL/dparams = integral of a^T dv/dparams        (Chen et al. 2018)

Memory does not grow with the steps. The state is solved back too, so the gradient is as right as that way back is: at
loose tolerances, or with few fixed steps, it is not the gradient of the steps that were taken, as grad="direct" is.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cf_flowcore.solve import solve
from cf_flowcore.velocity import Velocity


def solve_adjoint(
    v: Velocity,
    x_0: Float[Tensor, "b *d"],
    params: Iterable[Tensor] | None = None,
    *,
    t_0: float = 0.0,
    t_1: float = 1.0,
    method: str = "dopri5",
    steps: int | None = None,
    grid: Sequence[float] | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_nfe: int = 10_000,
) -> Float[Tensor, "b *d"]:
    """x(t_1), differentiable by x_0 and by `params`, in memory that does not grow with the steps.

    params: every tensor that v depends on and whose gradient is wanted; a module's own parameters if v is one. There is
    no telling what a function closes over, so for another v they must be given (an empty tuple for none).
    Other options as in `solve`; the way back takes the same steps in reverse, or the same tolerances.
    """
    if params is None:
        if not isinstance(v, nn.Module):
            raise ValueError(
                "solve_adjoint needs params=, the tensors that v depends on; () if there are none"
            )
        params = v.parameters()
    wanted = tuple(p for p in params if p.requires_grad)
    how: dict[str, Any] = {"method": method, "rtol": rtol, "atol": atol, "max_nfe": max_nfe}
    way = _Way(t_0, t_1, steps, None if grid is None else tuple(grid), how)
    end = _Adjoint.apply(v, way, x_0, *wanted)
    assert isinstance(end, Tensor)
    return end


class _Way:
    """From where to where, and how; the same backwards."""

    def __init__(
        self, t_0: float, t_1: float, steps: int | None, grid: tuple[float, ...] | None, how: dict[str, Any]
    ) -> None:
        self.t_0, self.t_1, self.steps, self.grid, self.how = t_0, t_1, steps, grid, how

    def solve(self, v: Velocity, x: Tensor) -> Tensor:
        return solve(v, x, t_0=self.t_0, t_1=self.t_1, steps=self.steps, grid=self.grid, **self.how).x

    def back(self) -> "_Way":
        grid = None if self.grid is None else self.grid[::-1]
        return _Way(self.t_1, self.t_0, self.steps, grid, self.how)


class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Velocity, way: _Way, x_0: Tensor, *params: Tensor) -> Tensor:
        x_1 = way.solve(v, x_0)
        ctx.v, ctx.way = v, way
        ctx.save_for_backward(x_1, *params)
        return x_1

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x_1, *params = ctx.saved_tensors
        wide = torch.promote_types(x_1.dtype, torch.float32)
        parts = [x_1, grads[0], *(torch.zeros_like(p) for p in params)]
        sizes = [p.numel() for p in parts]
        # one row: the error of a step is then measured over states, adjoints and parameters together
        y = torch.cat([p.reshape(-1).to(wide) for p in parts])[None]

        def augmented(y: Tensor, t: Tensor) -> Tensor:
            flat_x, flat_a, *_ = y[0].split(sizes)
            with torch.enable_grad():
                x = flat_x.reshape(x_1.shape).to(x_1.dtype).requires_grad_()
                velocity = ctx.v(x, t.expand(len(x)).contiguous())
                a = flat_a.reshape(x_1.shape).to(velocity.dtype)
                products = torch.autograd.grad(velocity, (x, *params), a, allow_unused=True)
            turned = [
                torch.zeros(size, dtype=wide, device=y.device) if p is None else -p.reshape(-1).to(wide)
                for p, size in zip(products, sizes[1:], strict=True)
            ]
            return torch.cat([velocity.detach().reshape(-1).to(wide), *turned])[None]

        end = ctx.way.back().solve(augmented, y)
        _, a, *integrals = end[0].split(sizes)
        by_params = [g.reshape(p.shape).to(p.dtype) for g, p in zip(integrals, params, strict=True)]
        return None, None, a.reshape(x_1.shape).to(x_1.dtype), *by_params
