"""The search for the scale of guidance, on captions that are neither trained on nor reported (CrossFlow Table 3c)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from cf_eval.composition import TASKS

from cf_apps.data.captioned import CaptionedImages
from cf_apps.data.captioned_shapes import held_out_captions, shapes_reader
from cf_apps.data.sources import SHAPES, open_source
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.ranks.spread import in_order, own_parts
from cf_apps.engine.watching.progress import Progress, Silence
from cf_apps.t2i.evaluate import BATCH, colour_distance, counted
from cf_apps.t2i.model import Velocity
from cf_apps.t2i.sample import Sampler

INDICATOR = "indicator"
UNGUIDED = 1.0
Guidances = Mapping[str, Velocity | None]
"""By name: the weak velocity of autoguidance, or None for the indicator."""


@dataclass(frozen=True)
class Value:
    """A measurement. error: one standard error, where the measure has one."""

    value: float
    error: float | None = None


@dataclass(frozen=True)
class Measure:
    """What a search goes by. captions: those it draws, all of split `val`. take: draws them and scores the pictures."""

    name: str
    higher_is_better: bool
    captions: Sequence[str]
    take: Callable[[Sampler, SampleConfig, Progress], Value]


@dataclass(frozen=True)
class Point:
    """One guidance at one scale."""

    guidance: str
    scale: float
    measured: Value


@dataclass(frozen=True)
class Search:
    """What was measured, guidance by guidance, the scales of each in ascending order."""

    measure: Measure
    points: tuple[Point, ...]

    @property
    def scales(self) -> list[float]:
        return sorted({point.scale for point in self.points})

    def best(self) -> Point:
        """The best point; of equal ones the one with the least guidance."""
        sign = -1.0 if self.measure.higher_is_better else 1.0
        return min(self.points, key=lambda p: (sign * p.measured.value, abs(p.scale - UNGUIDED)))

    def of(self, guidance: str) -> list[Point]:
        return [point for point in self.points if point.guidance == guidance]

    def table(self) -> dict[str, dict[str, float]]:
        """For `print_table`: a column for each guidance, a row for each scale."""
        names = dict.fromkeys(point.guidance for point in self.points)
        return {name: {f"scale {p.scale:g}": p.measured.value for p in self.of(name)} for name in names}

    def said(self) -> list[str]:
        """The result in words: the best scale, and what it does not stand out from."""
        best = self.best()
        lines = [
            f"best {self.measure.name}: {best.measured.value:.3f}, {best.guidance} at scale {best.scale:g}"
        ]
        if (error := best.measured.error) is not None:
            gap = {p: abs(p.measured.value - best.measured.value) for p in self.points if p != best}
            near = [p for p, behind in gap.items() if behind <= error]
            others = ", ".join(f"{p.guidance} {p.scale:g}" for p in near) or "none"
            lines.append(f"within one standard error ({error:.3f}) of it: {others}")
        if best.scale in (min(self.scales), max(self.scales)) and len(self.scales) > 1:
            lines.append("the best scale is at the edge of those that were tried; try further ones")
        return lines


def search(
    sampler: Sampler,
    guidances: Guidances,
    scales: Sequence[float],
    how: SampleConfig,
    measure: Measure,
    line: Progress,
) -> Search:
    """Measure each guidance at each scale, the same x_0 in all. Scale 1 is no guidance, whichever, and measured once.

    Within `spread_over` the ranks draw and read their own pictures, and all know what all have found.
    Raises ConfigError for scales that are none or not finite, before anything is drawn.
    """
    if not scales:
        raise ConfigError("the search needs scales, such as --scales 0 1 1.5 2 3")
    hows = [replace(how, scale=scale) for scale in sorted(set(scales))]  # refuses what is no scale
    todo = [(name, each) for name in guidances for each in hows]
    points, unguided = [], None
    for done, (name, each) in enumerate(todo):
        part = _Part(line, done / len(todo), 1 / len(todo), f"{name} at scale {each.scale:g}")
        is_unguided = each.scale == UNGUIDED
        if not is_unguided or unguided is None:
            value = measure.take(replace(sampler, weak=guidances[name]), each, part)
            unguided = value if is_unguided else unguided
        else:
            value = unguided
        points.append(Point(name, each.scale, value))
    line.show(1.0, f"{len(todo)} points")
    return Search(measure, tuple(points))


def measure_for(data: str, image_size: int, captions: int, seed: int) -> Measure:
    """Composition accuracy for captioned shapes, the distance of mean colours for pairs of the user's.

    captions: how many, about. For pairs these are the first of the half that `evaluate` reports on: they have no third.
    """
    if captions < 2:
        raise ConfigError(f"--captions must be at least 2, got {captions}")
    if data == SHAPES:
        return composition_measure(max(1, round(captions / len(TASKS))), seed)
    return colour_measure(open_source(data, image_size, seed).val, captions, seed)


def composition_measure(per_task: int, seed: int) -> Measure:
    """The share of val captions of captioned shapes that are drawn right, `per_task` of each of six tasks."""
    captions = held_out_captions(per_task, split="val")
    texts = [caption.text for caption in captions]

    def take(sampler: Sampler, how: SampleConfig, line: Progress) -> Value:
        generator, reader, seen = torch.Generator().manual_seed(seed), shapes_reader(), []
        with own_parts(len(texts), BATCH) as parts:
            for part in parts:
                images = sampler.draw([texts[i] for i in part.places], how, part.of(generator))
                seen += zip(part.places, reader(images), strict=True)
                line.show(part.places.stop / len(texts), f"{part.places.stop} of {len(texts)} captions")
        overall = counted(in_order(seen), captions)[0].compute()["overall"]
        return Value(overall, _standard_error(overall, len(texts)))

    return Measure("composition accuracy", True, texts, take)


def colour_measure(data: CaptionedImages, captions: int, seed: int) -> Measure:
    """The Fréchet distance of 4 x 4 mean colours over the first captions of a set."""
    texts = data.batch(torch.arange(min(captions, len(data)))).captions

    def take(sampler: Sampler, how: SampleConfig, line: Progress) -> Value:
        return Value(colour_distance(sampler, data, how, line, limit=captions, seed=seed).value)

    return Measure("Fréchet distance of mean colours", False, texts, take)


def _standard_error(share: float, count: int) -> float:
    """Of a share of `count` verdicts, by Laplace's rule: not zero where all were right."""
    likely = (share * count + 1) / (count + 2)
    return math.sqrt(likely * (1 - likely) / count)


class _Part(Silence):
    """A stretch of a longer line of progress."""

    def __init__(self, line: Progress, start: float, share: float, label: str) -> None:
        self._line, self._start, self._share, self._label = line, start, share, label

    def show(self, done: float, text: str) -> None:
        self._line.show(self._start + 0.999 * self._share * done, f"{self._label}, {text}")
