"""Judging a claim by a few seeds: paired by seed, and open where the seeds do not agree.

A difference counts where all seeds have its sign and its mean is at least twice its standard error (over the seeds).
Two seeds or three cannot do more. What the paper leaves to the eye gets a number here, named with its claim.

A claim may name several numbers, the best judge first, such as an FID and what stands in for it: it goes by the first
that every row has. Where there is none, the claim is not decidable (`Unmeasured`).
"""

import statistics
from collections.abc import Callable, Sequence

from cf.spec import NOT_REPRODUCED, REPRODUCED, UNDECIDED, Claim, Results

Judge = Callable[[Results], tuple[str, str]]
Numbers = str | Sequence[str]
"""A number by name, or several, of which the first that was measured counts."""

NOT_MEASURED = "not measured at this scale"


class Unmeasured(LookupError):
    """No row has the number that a claim is about."""


def claim(words: str, judge: Judge) -> Claim:
    """The claim that `judge` decides; not decidable where it asks for a number that was not measured."""

    def decided(results: Results) -> tuple[str, str]:
        try:
            return judge(results)
        except Unmeasured:
            return UNDECIDED, NOT_MEASURED

    return Claim(words, decided)


def measured(results: Results, rows: Sequence[str], numbers: Numbers) -> str:
    """The first of the numbers that all these rows have, with every seed. Raises Unmeasured."""
    for number in [numbers] if isinstance(numbers, str) else numbers:
        if all(number in result for row in rows for result in results.get(row, [{}])):
            return number
    raise Unmeasured(f"{', '.join(rows)} have no {numbers}")


def differences(results: Results, row: str, than: str, numbers: Numbers) -> list[float]:
    """`row` minus `than`, seed by seed. Raises Unmeasured."""
    number = measured(results, [row, than], numbers)
    return [a[number] - b[number] for a, b in zip(results[row], results[than], strict=True)]


def sign(values: Sequence[float]) -> int:
    """+1 or -1 where the values clearly are, 0 where they do not say."""
    mean = statistics.mean(values)
    if len(values) < 2 or not (all(v > 0 for v in values) or all(v < 0 for v in values)):
        return 0
    if abs(mean) < 2 * standard_error(values):
        return 0
    return 1 if mean > 0 else -1


def standard_error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / len(values) ** 0.5


def verdict_of(direction: int) -> str:
    """Of a sign in the sense of the claim."""
    return {1: REPRODUCED, -1: NOT_REPRODUCED, 0: UNDECIDED}[direction]


def said(values: Sequence[float]) -> str:
    error = f" ± {standard_error(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):+.3f}{error} over {len(values)} seed{'s' if len(values) > 1 else ''}"


def better(words: str, row: str, than: str, numbers: Numbers, *, higher: bool = True) -> Claim:
    """`row` has the better number."""

    def judge(results: Results) -> tuple[str, str]:
        number = measured(results, [row, than], numbers)
        found = differences(results, row, than, number)
        direction = sign(found) if higher else -sign(found)
        return verdict_of(direction), f"{number}: {row} minus {than} {said(found)}"

    return claim(words, judge)


def ordered(words: str, rows: Sequence[str], numbers: Numbers, *, higher: bool = True) -> Claim:
    """Each row better than the one before: reproduced if every step is, not if any is clearly reversed."""

    def judge(results: Results) -> tuple[str, str]:
        number = measured(results, rows, numbers)
        pairs = list(zip(rows[1:], rows[:-1], strict=True))
        found = [differences(results, row, than, number) for row, than in pairs]
        directions = [sign(step) if higher else -sign(step) for step in found]
        overall = min(directions)
        steps = "; ".join(f"{a} minus {b} {said(f)}" for (a, b), f in zip(pairs, found, strict=True))
        return verdict_of(overall), f"{number}: {steps}"

    return claim(words, judge)


def grows(
    words: str, gap: Callable[[Results], list[list[float]]], places: Sequence[float], what: str
) -> Claim:
    """A gap, seed by seed at each place, rises along the places: the slope of its least-squares line.

    gap: of the results, (seeds, places).
    """

    def judge(results: Results) -> tuple[str, str]:
        slopes = [slope(places, values) for values in gap(results)]
        ends = [[values[0] for values in gap(results)], [values[-1] for values in gap(results)]]
        evidence = f"{what}: {said(ends[0])} at the first, {said(ends[1])} at the last; slope {said(slopes)}"
        return verdict_of(sign(slopes)), evidence

    return claim(words, judge)


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the least-squares line."""
    return statistics.linear_regression(x, y).slope


def at_most(words: str, row: str, numbers: Numbers, limit: float, meaning: str) -> Claim:
    """A number that the paper shows in pictures, or prints: reproduced where every seed stays within `limit`."""
    return _within(
        words, row, numbers, lambda value: value <= limit, f"{meaning}: {{}} (asked here: at most {limit:g})"
    )


def at_least(words: str, row: str, numbers: Numbers, limit: float, meaning: str) -> Claim:
    """The same of a number of which more is better."""
    return _within(
        words, row, numbers, lambda value: value >= limit, f"{meaning}: {{}} (asked here: at least {limit:g})"
    )


def _within(words: str, row: str, numbers: Numbers, holds: Callable[[float], bool], evidence: str) -> Claim:
    def judge(results: Results) -> tuple[str, str]:
        number = measured(results, [row], numbers)
        found = [result[number] for result in results[row]]
        held = [holds(value) for value in found]
        verdict = REPRODUCED if all(held) else UNDECIDED if any(held) else NOT_REPRODUCED
        return verdict, evidence.format(", ".join(f"{value:.3f}" for value in found))

    return claim(words, judge)


def needs(words: str, what: str) -> Claim:
    """A claim that no scale smaller than the paper's can judge."""
    return Claim(words, lambda results: (UNDECIDED, what))
