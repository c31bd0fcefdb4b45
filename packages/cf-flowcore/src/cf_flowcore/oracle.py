"""The velocity that a perfect network would learn, for a finite set of data."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from cf_flowcore.convert import convert, require_gaussian
from cf_flowcore.path import Path, expand_like

NUMBERS_AT_ONCE = 2**25  # of the differences between states and data: 128 MiB of float32


def exact_velocity(
    x_t: Float[Tensor, "b *d"], t: Float[Tensor, "b"], data: Float[Tensor, "n *d"], *, path: Path
) -> Float[Tensor, "b *d"]:
    """E[v_t | x_t] where x_0 ~ N(0, I) and x_1 is uniform on the n rows of `data`   (Lipman et al. eq. 8)

        E[x_1 | x_t] = sum_i w_i x_1^i,    w = softmax_i(-|x_t - a x_1^i|^2 / (2 b^2))

    A test's oracle, and the field that memorises: solved to t_max it ends on the data. Costs b n d. Raises ValueError
    for a path whose source is not declared Gaussian, and at times where b = 0.
    """
    require_gaussian(path, "exact_velocity")
    wide = torch.promote_types(x_t.dtype, torch.float32)
    expected = expected_data(x_t.to(wide), t.to(wide), data.to(wide), path=path)
    v = convert(expected, x_t.to(wide), t.to(wide), path=path, source="data", target="velocity")
    return v.to(x_t.dtype)


def expected_data(
    x_t: Float[Tensor, "b *d"], t: Float[Tensor, "b"], data: Float[Tensor, "n *d"], *, path: Path
) -> Float[Tensor, "b *d"]:
    """E[x_1 | x_t] for noise N(0, I) and x_1 uniform on the rows of `data`."""
    a, b, _, _ = path.coefficients(t)
    x, rows = x_t.reshape(len(x_t), -1), data.reshape(len(data), -1)
    at_once = max(1, NUMBERS_AT_ONCE // max(x.numel(), 1))
    # differences, not |x|^2 - 2 x x_1 + |x_1|^2: near t = 1 they are divided by a b^2 smaller than that sum's rounding
    distances = [(x[:, None] - a[:, None, None] * some).square().sum(-1) for some in rows.split(at_once)]
    logits = -torch.cat(distances, 1) / (2 * b.square())[:, None]
    return (logits.softmax(1) @ rows).reshape(x_t.shape)


def log_density(
    x_t: Float[Tensor, "b *d"], t: Float[Tensor, "b"], data: Float[Tensor, "n *d"], *, path: Path
) -> Float[Tensor, "b"]:
    """ln p_t(x_t) of the same mixture, N(a x_1^i, b^2 I) over the rows of `data`."""
    require_gaussian(path, "log_density")
    a, b, _, _ = path.coefficients(t)
    x, rows = x_t.reshape(len(x_t), -1), data.reshape(len(data), -1)
    squares = (x[:, None] - expand_like(a, x)[:, None] * rows).square().sum(-1)
    normaliser = x.shape[1] * torch.log(b * math.sqrt(2 * math.pi)) + math.log(len(rows))
    return torch.logsumexp(-squares / (2 * b.square())[:, None], 1) - normaliser
