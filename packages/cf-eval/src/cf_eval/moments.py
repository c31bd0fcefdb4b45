"""Mean and covariance of a stream of features, in float64, mergeable in any order.

The state is (n, mean, scatter) with scatter = sum (x - mean)(x - mean)^T. Chan, Golub and LeVeque (1979)
join two of them without losing the digits that sum x x^T - n mean mean^T cancels when mean >> std:

    delta   = mean_b - mean_a
    mean    = mean_a + delta n_b / n
    scatter = scatter_a + scatter_b + delta delta^T n_a n_b / n
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from cf_eval.files import replaced


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of `count` feature vectors of width d.

    Immutable: `update` and `merge` return new moments. `Moments.of(x).merge(Moments.of(y))` equals
    `Moments.of(cat([x, y]))` up to float64 rounding, so shards, ranks and restarts may be joined freely.
    """

    count: int
    mean: Float64[Tensor, "d"]
    scatter: Float64[Tensor, "d d"]

    @staticmethod
    def empty(width: int) -> "Moments":
        """Of no vectors; the neutral element of `merge`."""
        zeros = torch.zeros(width, dtype=torch.float64)
        return Moments(0, zeros, torch.outer(zeros, zeros))

    @staticmethod
    def of(features: Float[Tensor, "n d"]) -> "Moments":
        """Of one batch, any float type or device. Raises ValueError for NaN or infinity."""
        if features.ndim != 2:
            raise ValueError(f"features must be (n, d), got shape {tuple(features.shape)}; flatten them")
        x = features.detach().cpu().double()  # in this order: some devices have no float64
        finite = x.isfinite().all(1)
        if not finite.all():
            raise ValueError(f"feature row {int((~finite).nonzero()[0])} of the batch is not finite")
        if len(x) == 0:
            return Moments.empty(x.shape[1])
        mean = x.mean(0)
        centred = x - mean
        return Moments(len(x), mean, centred.T @ centred)

    def update(self, features: Float[Tensor, "n d"]) -> "Moments":
        """These moments with one more batch."""
        return self.merge(Moments.of(features))

    def merge(self, other: "Moments") -> "Moments":
        """The moments of both sets together."""
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"cannot merge widths {len(self.mean)} and {len(other.mean)}: other features")
        if self.count == 0 or other.count == 0:
            return self if other.count == 0 else other
        count = self.count + other.count
        delta = other.mean - self.mean
        return Moments(
            count,
            self.mean + delta * (other.count / count),
            self.scatter + other.scatter + torch.outer(delta, delta) * (self.count * other.count / count),
        )

    @property
    def cov(self) -> Float64[Tensor, "d d"]:
        """Unbiased covariance, as np.cov and every FID: scatter / (n - 1)."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 samples, got {self.count}")
        return self.scatter / (self.count - 1)

    def save(self, path: str | Path) -> None:
        """Write mu and sigma under the names FID tools use, and count. Never leaves half a file."""
        with replaced(path) as partial, partial.open("wb") as file:
            np.savez(file, mu=self.mean.numpy(), sigma=self.cov.numpy(), count=np.int64(self.count))

    @staticmethod
    def load(path: str | Path, count: int | None = None) -> "Moments":
        """Read an npz with mu and sigma. Files of other tools do not say the count: pass it.

        Raises ValueError for a damaged file, one without mu and sigma, shapes that do not fit, or NaN in them.
        """
        mean, cov, stored = _read(path)
        if stored is not None and count is not None and stored != count:
            raise ValueError(f"{path} holds moments of {stored} samples, not {count}; leave count out")
        total = stored if stored is not None else count
        if total is None:
            raise ValueError(f"{path} does not say how many samples it was made from; pass count=")
        return Moments(total, mean, cov * (total - 1))

    @staticmethod
    def stored_count(path: str | Path) -> int | None:
        """How many samples a file says it was made from; None where it does not say."""
        return _read(path)[2]


def _read(path: str | Path) -> tuple[Float64[Tensor, "d"], Float64[Tensor, "d d"], int | None]:
    """mu, sigma and count of an npz."""
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path} cannot be read as an npz of mu and sigma: {error}") from error
    if not {"mu", "sigma"} <= set(arrays):
        raise ValueError(f"{path} has no mu and sigma; its arrays: {', '.join(arrays)}")
    mean, cov = (torch.from_numpy(arrays[name].astype(np.float64)) for name in ("mu", "sigma"))
    if mean.ndim != 1 or cov.shape != (len(mean), len(mean)):
        raise ValueError(
            f"{path}: mu must be (d,) and sigma (d, d), got {tuple(mean.shape)} and {tuple(cov.shape)}"
        )
    if not (mean.isfinite().all() and cov.isfinite().all()):
        raise ValueError(f"{path}: mu or sigma has NaN or infinity in it; make the file again")
    return mean, cov, int(arrays["count"]) if "count" in arrays else None
