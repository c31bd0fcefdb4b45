"""Does the picture show what the caption says? Composition accuracy in the six tasks of GenEval.

Rules follow GenEval (Ghosh et al. 2023): an object must be there with every attribute the caption states; counting is
exact; positions are judged between centres. `overall` is the mean of the task accuracies. Beside the verdict on whole
pictures stand the attributes one by one: how often all colours are right, whatever else is wrong.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations

from cf_eval.scene_reader import Detection, SceneReading

TASKS = ("single_object", "two_objects", "counting", "colours", "position", "attribute_binding")
ATTRIBUTES = ("number", "shape", "colour", "size", "place", "ground")


@dataclass(frozen=True)
class Wanted:
    """One object a caption asks for. None means the caption leaves it open, be it the shape ("something red").

    area: (low, high) bounds as fractions of the picture; x, y: (low, high) bounds on the centre, 0 to 1.
    """

    shape: str | None
    colour: str | None = None
    area: tuple[float, float] | None = None
    x: tuple[float, float] | None = None
    y: tuple[float, float] | None = None

    def matches(self, found: Detection) -> bool:
        return (
            self.shape in (None, found.shape)
            and self.colour in (None, found.colour)
            and _within(found.area, self.area)
            and _within(found.x, self.x)
            and _within(found.y, self.y)
        )


@dataclass(frozen=True)
class Expectation:
    """What must be seen for a caption to count as drawn.

    relations: (i, relation, j) over `wanted`, relation one of left_of, right_of, above, below.
    exact: the picture may hold no further object of a wanted shape (counting).
    """

    task: str
    wanted: tuple[Wanted, ...]
    relations: tuple[tuple[int, str, int], ...] = ()
    background: str | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"unknown task {self.task!r}; known: {', '.join(TASKS)}")
        for _, relation, _ in self.relations:
            if relation not in RELATIONS:
                raise ValueError(f"unknown relation {relation!r}; known: {', '.join(RELATIONS)}")


RELATIONS = {
    "left_of": lambda a, b: b.x - a.x > abs(a.y - b.y) * 0.5 and b.x - a.x > 0.1,
    "right_of": lambda a, b: a.x - b.x > abs(a.y - b.y) * 0.5 and a.x - b.x > 0.1,
    "above": lambda a, b: b.y - a.y > abs(a.x - b.x) * 0.5 and b.y - a.y > 0.1,
    "below": lambda a, b: a.y - b.y > abs(a.x - b.x) * 0.5 and a.y - b.y > 0.1,
}


def satisfies(reading: SceneReading, expectation: Expectation) -> bool:
    """True when some assignment of the found objects to the wanted ones fulfils everything the caption states."""
    if expectation.background not in (None, reading.background):
        return False
    found, wanted = reading.objects, expectation.wanted
    if expectation.exact and not _exact_count(found, wanted):
        return False
    return any(
        all(w.matches(d) for w, d in zip(wanted, chosen, strict=True))
        and all(RELATIONS[r](chosen[i], chosen[j]) for i, r, j in expectation.relations)
        for chosen in permutations(found, len(wanted))
    )


def everything_right(reading: SceneReading, expectation: Expectation) -> bool:
    """The stricter verdict: `satisfies`, and no object in the picture that the caption does not speak of."""
    return len(reading.objects) == len(expectation.wanted) and satisfies(reading, expectation)


def only(expectation: Expectation, attribute: str) -> Expectation | None:
    """What is left of an expectation when one attribute counts alone. None where it does not speak of it.

    place: the objects' own places and their relations. number: how many objects there are, whatever they are.
    """
    blank = replace(
        expectation, wanted=(Wanted(None),) * len(expectation.wanted), relations=(), background=None
    )
    wanted = expectation.wanted
    if attribute == "number":
        return replace(blank, exact=True)
    if attribute == "ground":
        return None if expectation.background is None else replace(blank, background=expectation.background)
    kept = {
        "shape": tuple(Wanted(w.shape) for w in wanted),
        "colour": tuple(Wanted(None, w.colour) for w in wanted),
        "size": tuple(Wanted(None, area=w.area) for w in wanted),
        "place": tuple(Wanted(None, x=w.x, y=w.y) for w in wanted),
    }[attribute]
    relations = expectation.relations if attribute == "place" else ()
    if not relations and all(w == Wanted(None) for w in kept):
        return None
    return replace(blank, wanted=kept, relations=relations, exact=False)


COUNTERS = ("right", "strict", "total", "attribute_right", "attribute_total")


@dataclass
class CompositionScore:
    """Running accuracy per task. Mergeable: counts add up.

    >>> score = CompositionScore(); score.add_batch(readings, expectations); score.compute()["overall"]
    """

    right: dict[str, int] = field(default_factory=dict)
    strict: dict[str, int] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)
    attribute_right: dict[str, int] = field(default_factory=dict)
    attribute_total: dict[str, int] = field(default_factory=dict)

    def add_batch(self, readings: Sequence[SceneReading], expectations: Sequence[Expectation]) -> list[bool]:
        """Count each picture under its task and return the verdicts, in order."""
        if len(readings) != len(expectations):
            raise ValueError(
                f"{len(readings)} readings for {len(expectations)} expectations; give one for one"
            )
        verdicts = []
        for reading, expectation in zip(readings, expectations, strict=True):
            verdicts.append(satisfies(reading, expectation))
            _add(self.right, expectation.task, verdicts[-1])
            _add(self.strict, expectation.task, everything_right(reading, expectation))
            _add(self.total, expectation.task, 1)
            for attribute in ATTRIBUTES:
                if (alone := only(expectation, attribute)) is not None:
                    _add(self.attribute_right, attribute, satisfies(reading, alone))
                    _add(self.attribute_total, attribute, 1)
        return verdicts

    def merge(self, others: "Iterable[CompositionScore]") -> "CompositionScore":
        """The score of all pictures together, as if one process had seen them."""
        merged = CompositionScore()
        for score in (self, *others):
            for name in COUNTERS:
                for task, count in getattr(score, name).items():
                    _add(getattr(merged, name), task, count)
        return merged

    def by_attribute(self) -> Mapping[str, float]:
        """Of the captions that speak of an attribute, the share in whose picture it is right, the rest aside.

        `colour` 0.9: in nine of ten pictures the stated colours are all there. Empty before anything was added.
        """
        return {
            name: self.attribute_right[name] / self.attribute_total[name]
            for name in ATTRIBUTES
            if name in self.attribute_total
        }

    def compute(self) -> Mapping[str, float]:
        """Accuracy per task, `overall` (their mean), `everything_right` (mean of the strict accuracies), `count`."""
        if not self.total:
            raise ValueError("no pictures were added; call add_batch first")
        tasks = [task for task in TASKS if task in self.total]
        accuracy = {task: self.right[task] / self.total[task] for task in tasks}
        strict = sum(self.strict[task] / self.total[task] for task in tasks) / len(tasks)
        overall = sum(accuracy.values()) / len(tasks)
        return {**accuracy, "overall": overall, "everything_right": strict, "count": sum(self.total.values())}


def _within(value: float, bounds: tuple[float, float] | None) -> bool:
    return bounds is None or bounds[0] <= value <= bounds[1]


def _exact_count(found: Sequence[Detection], wanted: Sequence[Wanted]) -> bool:
    shapes = {w.shape for w in wanted}
    return sum(d.shape in shapes or None in shapes for d in found) == len(wanted)


def _add(counts: dict[str, int], task: str, amount: int) -> None:
    counts[task] = counts.get(task, 0) + int(amount)
