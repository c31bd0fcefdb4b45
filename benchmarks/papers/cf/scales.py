"""The three scales by name."""

from collections.abc import Callable, Mapping

from cf import measures_others, measures_t2i, measures_walks, recipes_tiny
from cf.scale import Columns, Scale, Trained

MEASURES: Mapping[str, Callable[[Trained], Columns]] = {
    "unguided": measures_t2i.unguided,
    "guided": measures_t2i.guided,
    "autoguidance": measures_t2i.autoguidance,
    "budgets": measures_t2i.budgets,
    "sweep": measures_t2i.sweep,
    "walk": measures_walks.walk,
    "arithmetic": measures_walks.arithmetic,
    "captions": measures_others.captions,
    "depth": measures_others.depth,
    "aligned-depth": measures_others.aligned_depth,
    "superres": measures_others.superres,
}


def tiny() -> Scale:
    return Scale(
        "tiny",
        "captioned shapes at 32 px, minutes a training on a CPU",
        3,
        recipes_tiny.RECIPES,
        MEASURES,
        test=42,
        val=14,
    )


SCALES: Mapping[str, Callable[[], Scale]] = {"tiny": tiny}
