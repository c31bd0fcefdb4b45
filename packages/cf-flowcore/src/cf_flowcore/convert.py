"""What a network predicts, turned into what is needed: velocity, data, noise and score, every ordered pair.

With E the expectation given x_t, `data` is E[x_1] and `noise` is E[x_0], whatever the source is; these three and the
velocity are linear in one another for any source and any coupling. `score` is the gradient of ln p_t, which is only
known where x_0 given x_1 is N(0, I); `path.gaussian_source` says so.

    velocity = a' data + b' noise,      x_t = a data + b noise,      score = -noise / b,      W = a' b - a b'
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from cf_flowcore.path import Path, Rates, expand_like
from cf_flowcore.velocity import Velocity

KINDS = ("velocity", "data", "noise", "score")


def convert(
    prediction: Float[Tensor, "b *d"],
    x_t: Float[Tensor, "b *d"],
    t: Float[Tensor, "b"],
    *,
    path: Path,
    source: str,
    target: str,
    check: bool = True,
) -> Float[Tensor, "b *d"]:
    """The `target` that belongs to a `source`, both of "velocity", "data", "noise", "score".

    E.g. the usual formulas on CondOT: data = x + b v, noise = x - t v; on VP: score = 2 v / beta - x.

    Computed in at least float32, returned in the prediction's dtype; finite wherever it is defined, also at the ends of
    the path. Raises ValueError where it is not: the score of a source that is not Gaussian, or a time at which the
    prediction does not determine the target (with CondOT the noise at t = 0 says nothing of the data). Finding such a
    time reads once from the device; `check=False` does not look, and gives infinities there.
    """
    for name in (source, target):
        if name not in KINDS:
            raise ValueError(f"unknown kind of prediction {name!r}; known: {', '.join(KINDS)}")
    if source == target:
        return prediction
    if "score" in (source, target):
        require_gaussian(path, f"{source} to {target}")
    wide = torch.promote_types(prediction.dtype, torch.promote_types(t.dtype, torch.float32))
    a, b, da, _ = path.coefficients(t.to(wide))
    of_prediction, of_x, divisor = _FORMULAS[source, target](a, b, da, path.rates(t.to(wide)))
    p, q = of_prediction / divisor, of_x / divisor
    if check and not bool(torch.isfinite(p + q).all()):
        at = t[~torch.isfinite(p + q)][0].item()
        raise ValueError(
            f"at t={at:g} the {source} does not determine the {target} on {type(path).__name__}; keep t away from there"
        )
    total = expand_like(p, prediction) * prediction + expand_like(q, x_t) * x_t
    return total.to(prediction.dtype)


def as_velocity(net: Velocity, source: str, *, path: Path, check: bool = True) -> Velocity:
    """A field for `solve` out of a network that predicts data, noise or score of (x_t, t)."""

    def v(x: Tensor, t: Tensor) -> Tensor:
        return convert(net(x, t), x, t, path=path, source=source, target="velocity", check=check)

    return v


def require_gaussian(path: Path, what: str) -> None:
    """ValueError unless the path's source is declared Gaussian."""
    if not path.gaussian_source:
        raise ValueError(
            f"{what} needs x_0 ~ N(0, I), independent of x_1: the score of another source is not known; if yours is, "
            f"say so with {type(path).__name__}(..., gaussian_source=True)"
        )


Coefficients = tuple[Tensor, Tensor, Tensor]  # of the prediction, of x_t, and what both are divided by
Formula = Callable[[Tensor, Tensor, Tensor, Rates], Coefficients]

# a, b, a' and the rates r -> p, q, divisor of (p * prediction + q * x_t) / divisor. All that can be is cancelled: a
# divisor of 0 is where the prediction says nothing of the target.
_FORMULAS: dict[tuple[str, str], Formula] = {
    ("velocity", "data"): lambda a, b, da, r: (r.f * b, -r.db, r.w),
    ("velocity", "noise"): lambda a, b, da, r: (-r.f * a, r.f * da, r.w),
    ("velocity", "score"): lambda a, b, da, r: (a, -da, r.bw),
    ("data", "velocity"): lambda a, b, da, r: (r.w, r.db, r.f * b),
    ("data", "noise"): lambda a, b, da, r: (-a, torch.ones_like(a), b),
    ("data", "score"): lambda a, b, da, r: (a, -torch.ones_like(a), b * b),
    ("noise", "velocity"): lambda a, b, da, r: (-r.w, r.f * da, r.f * a),
    ("noise", "data"): lambda a, b, da, r: (-b, torch.ones_like(a), a),
    ("noise", "score"): lambda a, b, da, r: (-torch.ones_like(a), torch.zeros_like(a), b),
    ("score", "velocity"): lambda a, b, da, r: (r.bw, da, a),
    ("score", "data"): lambda a, b, da, r: (b * b, torch.ones_like(a), a),
    ("score", "noise"): lambda a, b, da, r: (-b, torch.zeros_like(a), torch.ones_like(a)),
}
