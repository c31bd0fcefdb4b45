"""Quality against the number of function evaluations, as one record: to keep, to compare, to draw.

Lipman et al. figure 7: how many evaluations a model needs for a quality, and what quality it reaches with how many.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from cf_eval.files import replaced
from cf_eval.result import Json


@dataclass(frozen=True)
class QualityPoint:
    """One measurement: `value` of the metric after `nfe` evaluations, over `count` samples, within +- `error`."""

    nfe: int
    value: float
    count: int
    error: float = 0.0

    def __post_init__(self) -> None:
        if self.nfe < 1 or self.count < 1:
            raise ValueError(f"nfe and count must be at least 1, got {self.nfe} and {self.count}")
        if not math.isfinite(self.value) or not math.isfinite(self.error) or self.error < 0:
            raise ValueError(
                f"at nfe {self.nfe}: value {self.value} and error {self.error} must be finite, error >= 0"
            )


@dataclass(frozen=True)
class QualityCurve:
    """What one model and solver reach with how many evaluations; points in order of nfe.

    name: model and solver, for the legend. metric and protocol: as in `Result`. details: anything else, as JSON.
    """

    name: str
    metric: str
    protocol: str
    lower_is_better: bool
    points: tuple[QualityPoint, ...]
    details: Mapping[str, Json] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name or not self.metric or not self.protocol:
            raise ValueError("a curve names its model, its metric and its protocol; one of them is empty")
        if not self.points:
            raise ValueError(f"{self.name}: a curve has at least one point")
        for a, b in pairwise(self.points):
            if a.nfe >= b.nfe:
                raise ValueError(
                    f"{self.name}: nfe must increase, got {a.nfe} then {b.nfe}; sort, one value each"
                )

    def setbacks(self) -> list[tuple[QualityPoint, QualityPoint]]:
        """Neighbours of which the one with more evaluations is worse by more than both errors together.

        Empty for a curve that gets no worse. A setback is a sign of a solver's fault or of too few samples.
        """
        return [
            (a, b)
            for a, b in pairwise(self.points)
            if self._cost(b.value) - self._cost(a.value) > a.error + b.error
        ]

    def is_monotone(self) -> bool:
        """True when there are no setbacks."""
        return not self.setbacks()

    def nfe_for(self, value: float) -> float | None:
        """Evaluations needed for a quality at least as good as `value`; None where the curve never reaches it.

        Between points the value is taken as linear in ln nfe. Before the first point nothing is known: the first nfe
        is then the answer, an upper bound.
        """
        aim = self._cost(value)
        if self._cost(self.points[0].value) <= aim:
            return float(self.points[0].nfe)
        for a, b in pairwise(self.points):
            if self._cost(b.value) <= aim:
                share = (a.value - value) / (a.value - b.value)
                return a.nfe * (b.nfe / a.nfe) ** share
        return None

    def relative_nfe(self, other: "QualityCurve", value: float) -> float | None:
        """nfe_for(value) here over another curve's: 0.6 means 60 % of its evaluations. None where either is None."""
        self._require_same_metric(other)
        own, theirs = self.nfe_for(value), other.nfe_for(value)
        return None if own is None or theirs is None else own / theirs

    def is_better_everywhere(self, other: "QualityCurve") -> bool:
        """True when at every nfe both have, this one is better. Raises ValueError where they share none."""
        self._require_same_metric(other)
        theirs = {point.nfe: point.value for point in other.points}
        shared = [(point.value, theirs[point.nfe]) for point in self.points if point.nfe in theirs]
        if not shared:
            raise ValueError(f"{self.name} and {other.name} share no nfe; measure both on one grid")
        return all(self._cost(own) < self._cost(their) for own, their in shared)

    def to_json(self) -> str:
        """One line of JSON; `from_json` gives an equal curve back."""
        return json.dumps({**asdict(self), "details": dict(self.details)}, ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> "QualityCurve":
        """The curve `to_json` wrote."""
        fields = json.loads(text)
        return QualityCurve(
            **{**fields, "points": tuple(QualityPoint(**point) for point in fields["points"])}
        )

    def _cost(self, value: float) -> float:
        return value if self.lower_is_better else -value

    def _require_same_metric(self, other: "QualityCurve") -> None:
        own = (self.metric, self.protocol, self.lower_is_better)
        if own != (other.metric, other.protocol, other.lower_is_better):
            raise ValueError(
                f"{self.name} measures {self.metric} ({self.protocol}), {other.name} {other.metric} "
                f"({other.protocol}): these do not compare"
            )


def save_curves(curves: Sequence[QualityCurve], path: str | Path) -> None:
    """Write a JSON line per curve. Never leaves half a file."""
    with replaced(path) as partial:
        partial.write_text("".join(curve.to_json() + "\n" for curve in curves), encoding="utf-8")


def load_curves(path: str | Path) -> list[QualityCurve]:
    """The curves `save_curves` wrote."""
    # not splitlines(), which also splits at separators a name may contain
    lines = Path(path).read_text(encoding="utf-8").split("\n")
    return [QualityCurve.from_json(line) for line in lines if line]


def plot_curves(curves: Sequence[QualityCurve], path: str | Path) -> None:
    """Draw the curves into one picture file, nfe on a logarithmic axis, errors as bars. Needs matplotlib."""
    if not curves:
        raise ValueError("no curves to draw")
    for curve in curves[1:]:
        curves[0]._require_same_metric(curve)
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("drawing needs matplotlib: pip install matplotlib") from error
    axes: Any = Figure(figsize=(5, 3.5), layout="constrained").subplots()
    for curve in curves:
        nfe, values, errors = zip(*((p.nfe, p.value, p.error) for p in curve.points), strict=True)
        axes.errorbar(nfe, values, yerr=errors, marker="o", capsize=2, label=curve.name)
    better = "lower" if curves[0].lower_is_better else "higher"
    axes.set(xscale="log", xlabel="function evaluations", ylabel=f"{curves[0].metric} ({better} is better)")
    axes.legend()
    axes.figure.savefig(path)
