"""Fréchet distance of two sets of pictures in the space of a network; FID where that network is FID's.

Heusel et al. 2017, eq. 6. The resize and the scaling that make one FID differ from another belong to the features
(`inception_features(path, protocol=...)`) and stand in every result.
"""

from dataclasses import dataclass
from pathlib import Path

from cf_eval.frechet import frechet_distance
from cf_eval.images.feature_stream import FeatureStream, as_moments
from cf_eval.images.features import Features
from cf_eval.images.two_sets import TwoSets
from cf_eval.images.weights import file_sha256
from cf_eval.moments import Moments
from cf_eval.result import Json, Result, is_fid_inception

FID_WIDTH = 2048


@dataclass(frozen=True)
class Reference:
    """Moments of a real set, read from a file, and what the result says of them."""

    moments: Moments
    file: str
    sha256: str
    count: int | None  # files of other tools do not say


class FID(TwoSets[FeatureStream]):
    """Fréchet distance of pictures as they stream in; exact also with fewer samples than the features are wide.

    >>> fid = FID(inception_features(path, protocol="pytorch-fid"))
    >>> fid.add_batch(real="photos/"); fid.add_batch(generated=images, value_range="-1..1"); fid.compute()

    The result is called "fid" only with the published Inception weights at 2048 features, whatever was asked for.
    """

    def __init__(self, features: Features) -> None:
        super().__init__(features, FeatureStream)
        self.reference: Reference | None = None

    def load_reference(self, path: str | Path, count: int | None = None) -> None:
        """Take the real set's mean and covariance from an npz with mu and sigma, of this or another tool.

        count: how many samples they are of, where the file does not say and one knows. They must be of the same
        network and protocol: the file cannot tell. Raises ValueError beside real pictures or for another file.
        """
        if self.real.count:
            raise ValueError(
                f"{self.real.count} real samples were added; give pictures or a reference, not both"
            )
        stored = Moments.stored_count(path)
        # n and (n - 1) cov / (n - 1) cancel: for a distance any n of at least 2 gives the file's covariance back
        moments = Moments.load(path, count=count or (None if stored else 2))
        self.reference = Reference(moments, Path(path).name, file_sha256(path), count or stored)

    def save_reference(self, path: str | Path) -> None:
        """Write the real set's mean and covariance in the usual layout (mu, sigma, and count)."""
        if self.real.count < 2:
            raise ValueError(f"the real set has {self.real.count} samples; a covariance needs at least 2")
        as_moments(self.real.summary()).save(path)

    def compute(self) -> Result:
        """The distance so far, in squared units of the features. Raises ValueError while a set is below 2."""
        if self.reference is not None and self.real.count:
            raise ValueError("real samples were added beside a reference; give one of the two")
        self.require_samples(2, "a Fréchet distance")
        real = self.reference.moments if self.reference else self.real.summary()
        distance = frechet_distance(real, self.generated.summary())
        width = self.generated.width
        name = "fid" if is_fid_inception(self.features.weights) and width == FID_WIDTH else "frechet_distance"
        return Result(
            metric=name,
            values={name: distance},
            protocol=f"{self.features.name}; mean and covariance in float64, ddof 1",
            count=self.generated.count,
            details={**self.details(), "width": width},
        )

    def require_samples(self, least: int, metric: str) -> None:
        """Raise ValueError naming the set that has fewer samples; a reference is enough by itself."""
        if self.reference is None:
            super().require_samples(least, metric)
        elif self.generated.count < least:
            raise ValueError(
                f"the generated set has {self.generated.count} samples; {metric} needs at least {least}"
            )

    def details(self) -> dict[str, Json]:
        """Counts and hashes, those of the reference included."""
        if self.reference is None:
            return super().details()
        reference: dict[str, Json] = {"file": self.reference.file, "sha256": self.reference.sha256}
        return {**super().details(), "real_count": self.reference.count, "reference": reference}
