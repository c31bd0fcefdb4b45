"""Fréchet distance between two feature distributions, each summed up as a Gaussian.

    d^2 = |mu_1 - mu_2|^2 + tr S_1 + tr S_2 - 2 tr (S_1 S_2)^{1/2}        (Dowson and Landau 1982, eq. 4)

This is the formula of FID (Heusel et al. 2017, eq. 6) for any features. FID itself is this number for one
network, one resize and one set of weights; nothing here calls itself that.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from cf_eval.distributed import Group, all_ranks
from cf_eval.moments import Moments
from cf_eval.result import Result

# The distance is a difference of traces that may be equal: what rounding leaves below zero, relative to
# the traces. Anything lower is not rounding but a matrix that is no covariance.
ROUNDING = 1e-6


def frechet_distance(a: Moments | Float[Tensor, "n d"], b: Moments | Float[Tensor, "m e"]) -> float:
    """d^2 above, in squared units of the features; symmetric, 0 for equal sets.

    Each side is given as its moments or as its features. Features that are fewer than they are wide give the
    more exact distance, sooner: see `nuclear_norm`. Raises ValueError for different widths, fewer than 2 samples,
    features that are not finite, or a covariance that is not one.
    """
    one, two = _summed_up(a), _summed_up(b)
    if one.mean.shape != two.mean.shape:
        raise ValueError(f"cannot compare features of widths {len(one.mean)} and {len(two.mean)}")
    traces = one.trace + two.trace
    spread = traces - 2 * _trace_of_root(one, two)
    if spread < -ROUNDING * traces:
        raise ValueError(f"Fréchet distance came out as {spread:.3g} < 0: a covariance is not positive")
    return float((one.mean - two.mean).square().sum() + spread.clamp(min=0))


@dataclass(frozen=True)
class _Few:
    """Fewer samples than dimensions: F with F F^T the covariance, of which the d x d matrix need not be made."""

    mean: Float64[Tensor, "d"]
    factor: Float64[Tensor, "d n"]

    @property
    def trace(self) -> Float64[Tensor, ""]:
        return self.factor.square().sum()


@dataclass(frozen=True)
class _Many:
    mean: Float64[Tensor, "d"]
    cov: Float64[Tensor, "d d"]

    @property
    def trace(self) -> Float64[Tensor, ""]:
        return self.cov.trace()


def _summed_up(samples: Moments | Tensor) -> _Few | _Many:
    """What the formula needs of one side."""
    if isinstance(samples, Tensor) and len(samples) < samples.shape[1]:
        x = samples.detach().cpu().double()
        return _Few(x.mean(0), sample_factor(x))
    moments = Moments.of(samples) if isinstance(samples, Tensor) else samples
    return _Many(moments.mean, moments.cov)


def _trace_of_root(a: _Few | _Many, b: _Few | _Many) -> Float64[Tensor, ""]:
    """tr (S_1 S_2)^{1/2} by the shortest way the two sides allow."""
    match a, b:
        case _Few(), _Few():
            return nuclear_norm(a.factor, b.factor)
        case _Few(), _Many():
            return _trace_by_factor(a.factor, b.cov)
        case _Many(), _Few():
            return _trace_by_factor(b.factor, a.cov)
        case _:
            assert isinstance(a, _Many)
            assert isinstance(b, _Many)
            return trace_sqrt_product(a.cov, b.cov)


def nuclear_norm(f: Float64[Tensor, "d n"], g: Float64[Tensor, "d m"]) -> Float64[Tensor, ""]:
    """tr (S_1 S_2)^{1/2} = |F^T G|_*, the sum of the singular values, for S_1 = F F^T and S_2 = G G^T.

    For fewer samples than dimensions: an n x m problem instead of a d x d one, and no square roots of rounding.
    """
    return torch.linalg.svdvals(f.T @ g).sum()


def sample_factor(x: Float[Tensor, "n d"]) -> Float64[Tensor, "d n"]:
    """F with F F^T the covariance of the rows: X_c^T / sqrt(n - 1)."""
    if len(x) < 2:
        raise ValueError(f"a covariance needs at least 2 samples, got {len(x)}")
    x = x.detach().cpu().double()
    finite = x.isfinite().all(1)
    if not finite.all():
        raise ValueError(f"feature row {int((~finite).nonzero()[0])} is not finite")
    return (x - x.mean(0)).T / (len(x) - 1) ** 0.5


def trace_sqrt_product(a: Float64[Tensor, "d d"], b: Float64[Tensor, "d d"]) -> Float64[Tensor, ""]:
    """tr (S_1 S_2)^{1/2} for positive semi-definite S_1, S_2.

    S_1 S_2 has no symmetry, but with S_1 = F F^T its non-zero eigenvalues are those of the symmetric
    F^T S_2 F: real, non-negative, and found by eigvalsh about ten times faster than a matrix square root.
    The factor of lower rank is taken, so that directions without variance bring no rounding in.
    """
    candidates = ((_factor(a), b), (_factor(b), a))
    factor, other = min(candidates, key=lambda pair: pair[0].shape[1])
    return _trace_by_factor(factor, other)


def _trace_by_factor(factor: Float64[Tensor, "d r"], other: Float64[Tensor, "d d"]) -> Float64[Tensor, ""]:
    """tr (F F^T S)^{1/2}: the roots of the eigenvalues of F^T S F."""
    product = factor.T @ other @ factor
    return torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()


def _factor(cov: Float64[Tensor, "d d"]) -> Float64[Tensor, "d r"]:
    """F with F F^T = cov: Cholesky at full rank, else the eigenvectors that carry variance."""
    floor = len(cov) * torch.finfo(cov.dtype).eps
    lower, failed = torch.linalg.cholesky_ex(cov)
    pivots = lower.diagonal().square()
    if not failed and pivots.min() > floor * pivots.max():
        return lower
    values, vectors = torch.linalg.eigh(cov)
    carried = values > floor * values.max()
    return vectors[:, carried] * values[carried].sqrt()


class FrechetDistance:
    """Fréchet distance of a stream of real and generated samples, in the space of `features`.

    features: maps a batch of samples to (n, d). feature_space: what they are, for the reader of the result
    ("8 x 8 colour means", "dinov2-vitl14 CLS, PIL bicubic 224"). State merges across ranks and shards.
    """

    def __init__(self, features: Callable[[Tensor], Tensor], feature_space: str) -> None:
        if not feature_space:
            raise ValueError(
                "feature_space must name the features; without it the distance compares to nothing"
            )
        self.features = features
        self.feature_space = feature_space
        self.real: Moments | None = None
        self.generated: Moments | None = None

    def add_batch(self, *, real: Tensor | None = None, generated: Tensor | None = None) -> None:
        """Add samples to either set, or to both; batches may have any size."""
        if real is None and generated is None:
            raise ValueError("add_batch needs real=..., generated=..., or both")
        if real is not None:
            self.real = _join(self.real, self._moments(real))
        if generated is not None:
            self.generated = _join(self.generated, self._moments(generated))

    def merge(self, other: "FrechetDistance") -> None:
        """Take in what another rank or shard has seen, in the same feature space."""
        if other.feature_space != self.feature_space:
            raise ValueError(f"cannot merge {other.feature_space!r} into {self.feature_space!r}")
        self.real = _join(self.real, other.real)
        self.generated = _join(self.generated, other.generated)

    def gathered(self, group: Group | None = None) -> "FrechetDistance":
        """A new metric that has seen what all ranks of the group have, the same on each. All ranks must call it."""
        whole = FrechetDistance(self.features, self.feature_space)
        for real, generated in all_ranks((self.real, self.generated), group):
            whole.real, whole.generated = _join(whole.real, real), _join(whole.generated, generated)
        return whole

    def compute(self) -> Result:
        """The distance so far. Raises ValueError while a set has fewer than 2 samples."""
        for name, moments in (("real", self.real), ("generated", self.generated)):
            if moments is None or moments.count < 2:
                seen = 0 if moments is None else moments.count
                raise ValueError(f"the {name} set has {seen} samples; a Fréchet distance needs at least 2")
        assert self.real is not None
        assert self.generated is not None
        return Result(
            metric="frechet_distance",
            values={"frechet_distance": frechet_distance(self.real, self.generated)},
            protocol=f"features: {self.feature_space}; mean and covariance in float64, ddof 1",
            count=self.generated.count,
            details={"real_count": self.real.count, "width": len(self.real.mean)},
        )

    def _moments(self, samples: Tensor) -> Moments:
        with torch.no_grad():
            return Moments.of(self.features(samples))


def _join(a: Moments | None, b: Moments | None) -> Moments | None:
    if a is None or b is None:
        return b if a is None else a
    return a.merge(b)
