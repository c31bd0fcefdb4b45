"""Sample a trained field along another path than the one it was trained on, without training again."""

import torch
from torch import Tensor

from cf_flowcore.convert import convert
from cf_flowcore.path import Path, expand_like
from cf_flowcore.velocity import Velocity


def reschedule(v: Velocity, path: Path, new: Path) -> Velocity:
    """The velocity along `new` of a field v that was trained on `path`; exact, for every source.

    At the same ratio a : b both paths pass the same mixtures x_t, but for a factor: v is asked at the time of `path`
    with that ratio, and its data and noise are put together again with the rates of `new`. Where `new` reaches ratios
    that `path` never had (VP and VE never are pure noise), v is asked at the nearest time it knows, and the result is
    an approximation. Start `solve` at x_{t=0} of `new`: b(0) x_0, which for VE is far from x_0.
    """

    def moved(x: Tensor, t: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.promote_types(t.dtype, torch.float32))
        a_new, b_new, da_new, db_new = new.coefficients(t.to(wide))
        s = path.t_of(a_new, b_new).clamp(0.0, path.t_max)
        a, b, _, _ = path.coefficients(s)
        c = torch.hypot(a_new, b_new) / torch.hypot(a, b)
        x_s = x / expand_like(c, x)
        velocity = v(x_s.to(x.dtype), s).to(wide)
        data, noise = (
            convert(velocity, x_s, s, path=path, source="velocity", target=kind, check=False)
            for kind in ("data", "noise")
        )
        return (expand_like(da_new, data) * data + expand_like(db_new, noise) * noise).to(x.dtype)

    return moved
