"""Which x_0 goes with which x_1 of a batch: a permutation that shortens the way from source to data.

    perm = optimal_transport(x_0, x_1)
    x_1, labels = x_1[perm], labels[perm]      # everything that belongs to x_1 goes with it

A permutation, so every sample of the data is used exactly once. Off by default everywhere: it pays for unconditional
models. With conditions it teaches the noise to carry them, which no sampler will do (torchcfm's users found out): pass
the conditions then, and a weight for them. Noise coupled so is no longer independent of the data: no scores.
"""

import math

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from cf_flowcore.draw import permutation

METHODS = ("exact", "sinkhorn")


def independent(
    x_0: Float[Tensor, "b *d"], x_1: Float[Tensor, "b *d"], *, generator: torch.Generator | None = None
) -> Int[Tensor, "b"]:
    """A random permutation: what a batch of independent draws is anyway."""
    return permutation(len(x_1), generator=generator, device=x_1.device)


@torch.no_grad()
def optimal_transport(
    x_0: Float[Tensor, "b *d"],
    x_1: Float[Tensor, "b *d"],
    *,
    method: str = "exact",
    condition: Shaped[Tensor, "b *k"] | None = None,
    weight: float = math.inf,
    regularisation: float = 0.02,
    iterations: int = 200,
) -> Int[Tensor, "b"]:
    """The permutation of x_1 that makes the sum of |x_0 - x_1|^2 least   (mini-batch optimal transport)

    method      "exact": the assignment problem, by scipy (an extra) on the CPU: reads the costs from the device.
                "sinkhorn": entropic transport on the tensors' device, rounded to a permutation, largest entries first
    condition   (b, *k) of the samples as they came: row i belongs to x_1[i] and, before the coupling, to x_0[i].
                weight |c_i - c_j|^2 is added to the cost, so that noise is not sorted by condition; inf keeps every
                sample among those whose condition equals its own
    regularisation, iterations   of Sinkhorn: entropy in units of the mean cost, and alternations

    Raises ValueError for an unknown method or values that are not finite, ImportError where scipy is missing.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    if x_0.shape != x_1.shape:
        raise ValueError(f"x_0 and x_1 must have one shape, got {tuple(x_0.shape)} and {tuple(x_1.shape)}")
    cost = _squared_distances(x_0, x_1)
    if not bool(torch.isfinite(cost).all()):
        raise ValueError("x_0 and x_1 must be finite; a NaN or an infinity has no nearest sample")
    forbidden = None
    if condition is not None:
        if len(condition) != len(x_1):
            raise ValueError(f"condition must have one row per sample, got {len(condition)} for {len(x_1)}")
        if not bool(torch.isfinite(condition).all()):
            raise ValueError("condition must be finite; a NaN equals nothing, not even itself")
        if not weight >= 0.0:
            raise ValueError(
                f"weight must be zero or more, got {weight}; inf keeps samples with their own condition"
            )
        if math.isinf(weight):
            flat = condition.reshape(len(condition), -1)
            forbidden = (flat[:, None] != flat[None]).any(-1)
        else:
            cost = cost + weight * _squared_distances(condition, condition)
    if method == "exact":
        return _assignment(cost, forbidden)
    return _rounded(_sinkhorn(cost, forbidden, regularisation, iterations))


def _squared_distances(x: Shaped[Tensor, "b *d"], y: Shaped[Tensor, "b *d"]) -> Float[Tensor, "b b"]:
    """|x_i - y_j|^2 / d: in units of one dimension, so that weights mean the same at any size."""
    x, y = (z.reshape(len(z), -1).to(torch.promote_types(z.dtype, torch.float32)) for z in (x, y))
    # by one product; what is left out of |x - y|^2 in rounding does not change an assignment noticeably
    return (x.square().sum(1)[:, None] + y.square().sum(1)[None] - 2 * x @ y.T).clamp(min=0) / max(
        x.shape[1], 1
    )


def _assignment(cost: Float[Tensor, "b b"], forbidden: Tensor | None) -> Int[Tensor, "b"]:
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise ImportError(
            "optimal_transport(method='exact') needs scipy: pip install 'cf-flowcore[ot]', or method='sinkhorn'"
        ) from error
    if forbidden is not None:  # dearer than any allowed permutation can be; staying put is always allowed
        cost = cost + forbidden * (2.0 * len(cost) * cost.max() + 1.0)
    _, columns = linear_sum_assignment(cost.double().cpu().numpy())
    return torch.from_numpy(columns).to(cost.device)


def _sinkhorn(
    cost: Float[Tensor, "b b"], forbidden: Tensor | None, regularisation: float, iterations: int
) -> Float[Tensor, "b b"]:
    """The log of the entropic plan, whose rows and columns sum to one."""
    if not regularisation > 0.0:
        raise ValueError(f"regularisation must be positive, got {regularisation}")
    log_plan = -cost / (regularisation * cost.mean().clamp(min=torch.finfo(cost.dtype).tiny))
    if forbidden is not None:
        log_plan = log_plan.masked_fill(forbidden, -math.inf)
    for _ in range(iterations):
        log_plan = log_plan - log_plan.logsumexp(1, keepdim=True)
        log_plan = log_plan - log_plan.logsumexp(0, keepdim=True)
    return log_plan


def _rounded(score: Float[Tensor, "b b"]) -> Int[Tensor, "b"]:
    """A permutation out of scores: each free row asks for its best free column, and the best asker gets it.

    Ends, because the best pair of all that are left always wins, and rows and columns of equal condition are as many.
    """
    b = len(score)
    perm = torch.full((b,), -1, dtype=torch.int64, device=score.device)
    score, rows = score.clone(), torch.arange(b, device=score.device)
    while bool((perm < 0).any()):
        best, column = score.max(1)
        asked = torch.full_like(score, -math.inf)
        asked[rows, column] = torch.where(perm < 0, best, -math.inf)
        winner = asked.argmax(0)
        won = (column[winner] == rows) & (perm[winner] < 0) & (asked.amax(0) > -math.inf)
        perm[winner[won]] = rows[won]
        score[winner[won]] = -math.inf
        score[:, rows[won]] = -math.inf
    return perm
