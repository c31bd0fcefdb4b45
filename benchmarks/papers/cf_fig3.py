"""CrossFlow, Fig. 3: four sizes or more, four budgets each, beside the cross-attention baseline.

uv run python benchmarks/papers/cf_fig3.py --scale tiny
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from cf.claims import better, differences, grows
from cf.command import main
from cf.measures.judged import FIDELITY, quality
from cf.measures.numbers import PARAMETERS, SCALE
from cf.scale import Scale
from cf.spec import Curves, Number, Results, Row, Table, Training

OURS, BASELINE = "CrossFlow", "cross-attention"
KINDS = {OURS: "t2i", BASELINE: "t2i-noise"}
SAYS = {
    "tiny": "Four backbones of one kind; the text encoder, and what reads the words for the baseline, stay. ",
    "small": "Four backbones of one kind; the text encoder stays, and the baseline has as many parameters. ",
    "paper": "The paper's ladder; the baseline's sizes are 65M, 159M, 308M, 496M and 932M. ",
}
BUDGETS = (
    "Budgets are checkpoints of one training at a learning rate that stays, all at the scale of guidance that its end "
    "likes best."
)


@dataclass(frozen=True)
class Judged:
    """By which numbers the claims go, the first that was measured, and in words."""

    numbers: tuple[str, ...]
    higher: bool
    words: str


BY_RULE = Judged(("composition",), True, "composition accuracy")
ON_PAIRS = Judged(FIDELITY, False, "FID or what stands in for it,")


def name(method: str, size: str, step: int) -> str:
    return f"{method} {size}, {step} steps"


def table(scale: Scale) -> Table:
    sizes, steps = scale.ladder.rungs, scale.budgets()
    smallest, middle, largest, last = sizes[0], sizes[len(sizes) // 2], sizes[-1], steps[-1]
    by = BY_RULE if scale.by_rule else ON_PAIRS
    told = _told(scale, by)

    return Table(
        key="cf_fig3",
        title="Fig. 3: performance by parameters and by training steps",
        rows=tuple(
            Row(
                name(method, size, step),
                Training(scale.ladder.recipe(KINDS[method], size)),
                "budgets",
                str(step),
            )
            for method, size, step in product((OURS, BASELINE), sizes, steps)
        ),
        numbers=(*quality(scale), PARAMETERS, SCALE),
        claims=(
            better(
                "the smallest CrossFlow is behind the baseline",
                name(BASELINE, smallest, last),
                name(OURS, smallest, last),
                by.numbers,
                higher=by.higher,
            ),
            grows(
                "CrossFlow gains more from size",
                gaps([(size, last) for size in sizes], by),
                range(len(sizes)),
                f"{by.words} ahead of the baseline, by rung",
            ),
            grows(
                "CrossFlow gains more from training steps",
                gaps([(largest, step) for step in steps], by),
                range(len(steps)),
                f"{by.words} of {largest} ahead of the baseline, by budget",
            ),
            better(
                "the largest CrossFlow ends ahead",
                name(OURS, largest, last),
                name(BASELINE, largest, last),
                by.numbers,
                higher=by.higher,
            ),
        ),
        says=f"{SAYS[scale.name]}{BUDGETS}",
        curves=(
            Curves(
                {method: [name(method, size, last) for size in sizes] for method in (OURS, BASELINE)},
                PARAMETERS.name,
                "parameters",
                told.name,
                logarithmic=True,
            ),
            Curves(
                {
                    f"{method} {size}": [name(method, size, step) for step in steps]
                    for method, size in product((OURS, BASELINE), (smallest, middle, largest))
                },
                steps,
                "training steps",
                told.name,
            ),
        ),
    )


def gaps(places: list[tuple[str, int]], by: Judged) -> Callable[[Results], list[list[float]]]:
    """How far CrossFlow is ahead of the baseline at each (size, step), for each seed: (seeds, places)."""

    def found(results: Results) -> list[list[float]]:
        sign = 1 if by.higher else -1
        ahead = [
            [sign * gap for gap in differences(results, name(OURS, *at), name(BASELINE, *at), by.numbers)]
            for at in places
        ]
        return [list(each) for each in zip(*ahead, strict=True)]

    return found


def _told(scale: Scale, by: Judged) -> Number:
    """The number that the curves show."""
    return next(number for number in quality(scale) if number.name in by.numbers)


if __name__ == "__main__":
    main(table)
