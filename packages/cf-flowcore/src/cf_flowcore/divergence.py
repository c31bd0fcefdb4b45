"""div v = sum_i dv_i / dx_i of a field, exactly or by Hutchinson's estimate, one value per sample."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

ROWS_AT_ONCE = 64  # rows of the Jacobian in one batched call

Divergence = Callable[[Tensor, Tensor], Tensor]
"""(v, x) -> (b, p): v a function of x with its graph; p estimates side by side."""


def exact_divergence(
    v: Float[Tensor, "b *d"], x: Float[Tensor, "b *d"], *, create_graph: bool = False
) -> Float[Tensor, "b 1"]:
    """The trace of the Jacobian, all of its d rows by batched vector-Jacobian products: d / 64 backward passes."""
    b, d = len(x), x[0].numel()
    total = x.new_zeros(b)
    for first in range(0, d, ROWS_AT_ONCE):
        some = torch.arange(first, min(first + ROWS_AT_ONCE, d), device=x.device)
        units = torch.zeros(len(some), b, d, dtype=v.dtype, device=x.device)
        units[torch.arange(len(some), device=x.device), :, some] = 1.0
        rows = _vjp(v, x, units.reshape(len(some), *v.shape), batched=True, retain=True, create=create_graph)
        if rows is None:
            return total[:, None]
        total = total + rows.reshape(len(some), b, d).gather(2, some[:, None, None].expand(-1, b, 1)).sum(
            (0, 2)
        )
    return total[:, None]


def hutchinson_divergence(probes: Float[Tensor, "p b *d"], *, create_graph: bool = False) -> Divergence:
    """z^T (dv/dx) z for each probe z, of which E[z z^T] = I: unbiased, one backward pass each.

    The probes are drawn once for a whole solve: with new ones at every call an adaptive solver would see noise.
    """

    drawn = probes.unbind()

    def estimate(v: Tensor, x: Tensor) -> Tensor:
        columns = []
        for k, z in enumerate(drawn):
            last = k == len(drawn) - 1
            product = _vjp(v, x, z, batched=False, retain=create_graph or not last, create=create_graph)
            columns.append(
                x.new_zeros(len(x)) if product is None else (product * z).reshape(len(x), -1).sum(1)
            )
        return columns[0][:, None] if len(columns) == 1 else torch.stack(columns, 1)

    return estimate


def _vjp(
    v: Float[Tensor, "b *d"],
    x: Float[Tensor, "b *d"],
    z: Tensor,
    *,
    batched: bool,
    retain: bool,
    create: bool,
) -> Tensor | None:
    """z^T dv/dx for z of the shape of v (batched: (p, *shape)); None where v does not depend on x at all."""
    if not v.requires_grad:
        return None
    (product,) = torch.autograd.grad(
        v, x, z, is_grads_batched=batched, retain_graph=retain, create_graph=create, allow_unused=True
    )
    return product


def draw_probes(
    count: int, like: Float[Tensor, "b *d"], kind: str, generator: torch.Generator | None
) -> Float[Tensor, "p b *d"]:
    """`count` probes of mean 0 and variance 1: signs ("rademacher", the less noisy), or "gaussian"."""
    home = like.device if generator is None else generator.device
    size = (count, *like.shape)
    if kind == "rademacher":
        z = 2.0 * torch.randint(2, size, generator=generator, device=home, dtype=torch.int8) - 1.0
    elif kind == "gaussian":
        z = torch.randn(size, generator=generator, device=home)
    else:
        raise ValueError(f"unknown kind of probe {kind!r}; known: rademacher, gaussian")
    return z.to(like.device, like.dtype)
