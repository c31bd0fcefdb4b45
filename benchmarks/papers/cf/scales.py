"""The three scales by name."""

from collections.abc import Callable, Mapping

from cf.measures import guidance, others, pairs, sums, walks
from cf.measures.guidance import Judge
from cf.measures.pairs import ON_PAIRS
from cf.measures.t2i import BY_RULE
from cf.recipes import paper as paper_recipes
from cf.recipes import small as small_recipes
from cf.recipes import tiny as tiny_recipes
from cf.scale import Columns, Ladder, Scale, Trained

Measure = Callable[[Trained], Columns]


def either(by_rule: Measure, on_pairs: Measure) -> Measure:
    """What is measured of text to image: by rule where pictures can be read back, on pairs elsewhere."""
    return lambda trained: (by_rule if trained.by_rule else on_pairs)(trained)


def judged(measure: Callable[[Judge, Trained], Columns]) -> Measure:
    """The same measure by either judge."""
    return lambda trained: measure(BY_RULE if trained.by_rule else ON_PAIRS, trained)


MEASURES: Mapping[str, Measure] = {
    "unguided": judged(guidance.unguided),
    "guided": judged(guidance.guided),
    "autoguidance": judged(guidance.autoguidance),
    "budgets": judged(guidance.budgets),
    "sweep": judged(guidance.sweep),
    "geneval": pairs.geneval,
    "walk": either(walks.walk, pairs.walk),
    "arithmetic": either(walks.arithmetic, sums.arithmetic),
    "captions": others.captions,
    "depth": others.depth,
    "aligned-depth": others.aligned_depth,
    "superres": others.superres,
}


def tiny() -> Scale:
    return Scale(
        "tiny",
        "captioned shapes at 32 px, minutes a training on a CPU",
        3,
        tiny_recipes.RECIPES,
        MEASURES,
        Ladder(tuple(tiny_recipes.SIZES), tiny_recipes.BASE),
        {"word vectors, trained along": "t2i", "MiniLM (22M), frozen": "t2i-minilm"},
        test=42,
        val=14,
    )


def small() -> Scale:
    return Scale(
        "small",
        "the bundled emoji, or pairs of yours, at 64 px, minutes a training on one GPU",
        2,
        small_recipes.RECIPES,
        MEASURES,
        small_recipes.LADDER,
        small_recipes.LANGUAGES,
    )


def paper() -> Scale:
    return Scale(
        "paper",
        "the paper's own configurations, on data and weights of yours; under torchrun",
        1,
        paper_recipes.RECIPES,
        MEASURES,
        paper_recipes.LADDER,
        paper_recipes.LANGUAGES,
        scored=10_000,
        searched=2_000,
        best="t2i-best",
    )


SCALES: Mapping[str, Callable[[], Scale]] = {"tiny": tiny, "small": small, "paper": paper}
