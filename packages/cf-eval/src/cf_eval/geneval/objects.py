"""What a detector says about a picture, and which of it GenEval believes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, UInt8
from torch import Tensor

Box = tuple[float, float, float, float]
Picture = UInt8[Tensor, "3 h w"]


@dataclass(frozen=True)
class FoundObject:
    """One object. box: left, top, right, bottom in pixels. mask: its pixels, (h, w) of the whole picture, if known."""

    label: str
    score: float
    box: Box
    mask: Bool[Tensor, "h w"] | None = None


@runtime_checkable
class Detector(Protocol):
    """Finds objects. Any callable of this shape will do; `name` goes into the result."""

    @property
    def name(self) -> str: ...

    def __call__(self, picture: Picture) -> Sequence[FoundObject]:
        """The objects of one uint8 (3, h, w) picture, in any order and at any score, labelled by the names of COCO."""
        ...


@dataclass(frozen=True)
class GenEvalRules:
    """The thresholds of the official evaluation.

    threshold, counting_threshold: the score an object must exceed, and in the task "counting".
    max_objects: as many of a class are looked at, best first. max_overlap: of two of a class whose boxes overlap by
    this share of their union or more, the lesser is dropped; 1.0 drops none. position_margin: how much of the sum of
    two sizes the distance of their centres must exceed before it counts.
    """

    threshold: float = 0.3
    counting_threshold: float = 0.9
    max_objects: int = 16
    max_overlap: float = 1.0
    position_margin: float = 0.1

    def __str__(self) -> str:
        return (
            f"score > {self.threshold:g} (counting > {self.counting_threshold:g}), at most {self.max_objects} "
            f"of a class, overlap < {self.max_overlap:g}, margin {self.position_margin:g}"
        )


def believed(found: Sequence[FoundObject], tag: str, rules: GenEvalRules) -> Mapping[str, list[FoundObject]]:
    """Objects by class, best first, that pass the rules of the task. Classes without one are absent."""
    least = rules.counting_threshold if tag == "counting" else rules.threshold
    classes: dict[str, list[FoundObject]] = {}
    for thing in sorted(found, key=lambda thing: -thing.score):
        if thing.score > least:
            classes.setdefault(thing.label, []).append(thing)
    return {
        label: without_overlaps(things[: rules.max_objects], rules.max_overlap)
        for label, things in classes.items()
    }


def without_overlaps(things: Sequence[FoundObject], max_overlap: float) -> list[FoundObject]:
    """Best first; each is kept unless it overlaps one kept before by `max_overlap` or more. 1.0 keeps all."""
    if max_overlap >= 1:
        return list(things)
    kept: list[FoundObject] = []
    for thing in things:
        if all(overlap(thing.box, other.box) < max_overlap for other in kept):
            kept.append(thing)
    return kept


def overlap(a: Box, b: Box) -> float:
    """Intersection over union, counting the pixels at both ends of a box as GenEval does."""
    common = _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    union = _area(a) + _area(b) - common
    return common / union if union else 0.0


def _area(box: Box) -> float:
    return max(box[2] - box[0] + 1, 0.0) * max(box[3] - box[1] + 1, 0.0)
