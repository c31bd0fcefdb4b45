"""CrossFlow, Fig. 3: four sizes, three budgets each and more, beside the cross-attention baseline.

uv run python benchmarks/papers/cf_fig3.py --scale tiny
"""

from itertools import product

from cf.claims import better, differences, grows
from cf.command import main
from cf.numbers import COMPOSITION, FRECHET, PARAMETERS
from cf.recipes_tiny import BASE, BUDGETS, SIZES
from cf.recipes_tiny import STEPS as ALL
from cf.spec import Curves, Results, Row, Table, Training

STEPS = [ALL * k // BUDGETS for k in range(1, BUDGETS + 1)]

OURS, BASELINE = "CrossFlow", "cross-attention"


def name(method: str, size: str, step: int) -> str:
    return f"{method} {size}, {step} steps"


def training(method: str, size: str) -> Training:
    kind = "t2i" if method == OURS else "t2i-noise"
    return Training(kind if size == BASE else f"{kind}-{size}")


def gap_by_size(results: Results) -> list[list[float]]:
    """CrossFlow minus the baseline in composition accuracy at the last budget, size by size, for each seed."""
    steps = [differences(results, name(OURS, s, LAST), name(BASELINE, s, LAST), "composition") for s in SIZES]
    return [list(gaps) for gaps in zip(*steps, strict=True)]


def gap_by_budget(results: Results) -> list[list[float]]:
    """The same at the largest size, budget by budget."""
    gaps = [
        differences(results, name(OURS, LARGEST, s), name(BASELINE, LARGEST, s), "composition") for s in STEPS
    ]
    return [list(each) for each in zip(*gaps, strict=True)]


LARGEST, LAST = list(SIZES)[-1], STEPS[-1]
SMALLEST = list(SIZES)[0]
TABLE = Table(
    key="cf_fig3",
    title="Fig. 3: performance by parameters and by training steps",
    rows=tuple(
        Row(name(method, size, step), training(method, size), "budgets", str(step))
        for method, size, step in product((OURS, BASELINE), SIZES, STEPS)
    ),
    numbers=(FRECHET, COMPOSITION, PARAMETERS),
    claims=(
        better(
            "the smallest CrossFlow is behind the baseline",
            name(BASELINE, SMALLEST, LAST),
            name(OURS, SMALLEST, LAST),
            "composition",
        ),
        grows(
            "CrossFlow gains more from size",
            gap_by_size,
            range(len(SIZES)),
            "composition accuracy ahead of the baseline, by rung",
        ),
        grows(
            "CrossFlow gains more from training steps",
            gap_by_budget,
            range(len(STEPS)),
            f"composition accuracy of {LARGEST} ahead of the baseline, by budget",
        ),
        better(
            "the largest CrossFlow ends ahead",
            name(OURS, LARGEST, LAST),
            name(BASELINE, LARGEST, LAST),
            "composition",
        ),
    ),
    says="Four backbones of one kind; the text encoder, and what reads the words for the baseline, stay. Budgets are "
    "checkpoints of one training at a learning rate that stays.",
    curves=(
        Curves(
            {method: [name(method, size, LAST) for size in SIZES] for method in (OURS, BASELINE)},
            range(len(SIZES)),
            "rung of the ladder",
            "composition",
        ),
        Curves(
            {
                f"{method} {size}": [name(method, size, step) for step in STEPS]
                for method, size in product((OURS, BASELINE), (SMALLEST, BASE, LARGEST))
            },
            STEPS,
            "training steps",
            "composition",
        ),
    ),
)


if __name__ == "__main__":
    main(TABLE)
