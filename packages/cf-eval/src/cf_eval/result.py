"""A number that says what it is: metric, protocol, sample count."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

# what the sha256 of the file starts with that all FID tools load: pt_inception-2015-12-05-6726825d.pth
FID_INCEPTION = "6726825d"

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True)
class Result:
    """What a metric hands back; enough to repeat the measurement.

    metric: which formula ("frechet_distance"). values: its numbers by name, in the metric's units.
    protocol: everything that moves the number and is not in the formula (features, resize, splits).
    count: how many samples were scored. details: anything else, as JSON.

    Only a Fréchet distance of the released Inception features may be called FID: a metric named so needs
    details["inception_sha256"], the hash of the weights it was measured with, and it must be theirs.
    """

    metric: str
    values: Mapping[str, float]
    protocol: str
    count: int
    details: Mapping[str, Json] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.metric or not self.protocol:
            raise ValueError(
                f"a result names its metric and its protocol, got {self.metric!r} and {self.protocol!r}"
            )
        if not self.values:
            raise ValueError(f"{self.metric}: a result holds at least one value")
        if self.count < 1:
            raise ValueError(f"{self.metric}: count must be at least 1, got {self.count}; add a batch first")
        for name, value in self.values.items():
            if not math.isfinite(value):
                raise ValueError(f"{self.metric}: {name} is {value}; look for NaN or infinity in the inputs")
        if re.search(r"(^|[^a-z])fid([^a-z]|$)", self.metric.lower()) and not is_fid_inception(self.details):
            raise ValueError(
                f"{self.metric!r} may be called FID only with details['inception_sha256'], the hash of the "
                f"Inception weights ({FID_INCEPTION}...), got {self.details.get('inception_sha256')!r}; with other "
                "features call it frechet_distance and name them in protocol"
            )

    @property
    def value(self) -> float:
        """The only value. Raises when there are several."""
        if len(self.values) != 1:
            raise ValueError(f"{self.metric} has several values: {', '.join(self.values)}; take one by name")
        return next(iter(self.values.values()))

    def to_json(self) -> str:
        """One line of JSON; `from_json` gives an equal result back."""
        return json.dumps(
            {**asdict(self), "values": dict(self.values), "details": dict(self.details)}, ensure_ascii=False
        )

    @staticmethod
    def from_json(text: str) -> "Result":
        """The result `to_json` wrote."""
        return Result(**json.loads(text))

    def __str__(self) -> str:
        numbers = ", ".join(f"{name} {value:.6g}" for name, value in self.values.items())
        return f"{self.metric}: {numbers}  ({self.protocol}; n = {self.count})"


def is_fid_inception(hashes: Mapping[str, Json]) -> bool:
    """Whether `hashes` name the weights that every FID is measured with."""
    return str(hashes.get("inception_sha256", "")).startswith(FID_INCEPTION)
