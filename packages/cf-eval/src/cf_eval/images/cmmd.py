"""CMMD (Jayasumana et al. 2024): maximum mean discrepancy of CLIP embeddings."""

from torch.nn.functional import normalize

from cf_eval.images.feature_set import FeatureSet
from cf_eval.images.features import Features
from cf_eval.images.mmd import biased_mmd2, gaussian
from cf_eval.images.two_sets import TwoSets, in_float64
from cf_eval.result import Result

SIGMA = 10.0
SCALE = 1000.0


class CMMD(TwoSets[FeatureSet]):
    """1000 times the biased MMD^2 of embeddings of length 1 with a Gaussian kernel, sigma = 10.

    The paper's numbers are of CLIP ViT-L/14@336 and `clip_features(folder, resize="cmmd")`; with features that
    are not CLIP's the result is called "gaussian_mmd". The value falls with the size of the sets: compare like
    with like. A set with itself gives 0.
    """

    def __init__(self, features: Features) -> None:
        super().__init__(features, FeatureSet)

    def compute(self) -> Result:
        """Raises ValueError while a set has fewer than 2 samples."""
        self.require_samples(2, "CMMD")
        real, generated = (
            normalize(in_float64(side.features()), dim=1) for side in (self.real, self.generated)
        )
        name = "cmmd" if "clip_sha256" in self.features.weights else "gaussian_mmd"
        return Result(
            metric=name,
            values={name: SCALE * biased_mmd2(generated, real, gaussian(SIGMA))},
            protocol=f"{self.features.name}; rows of length 1, sigma {SIGMA:g}, biased, times {SCALE:g}",
            count=self.generated.count,
            details=self.details(),
        )
