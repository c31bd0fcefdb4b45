"""CrossFlow, Table 3c: no guidance, autoguidance, and the indicator; scales and checkpoint searched on val.

uv run python benchmarks/papers/cf_table3c.py --scale tiny
"""

from cf.claims import better
from cf.command import main
from cf.measures.judged import ALIGNMENT, FIDELITY, quality
from cf.measures.numbers import SCALE
from cf.scale import Scale
from cf.spec import Row, Table, Training
from cf_eval.composition import TASKS

NONE, AUTO, INDICATOR = "No guidance", "AG", "CFG indicator"
NO_USE = "a scale of 1 means that it found no use for guidance."


def says(scale: Scale) -> str:
    """What the search goes by, and how well that is known."""
    if not scale.by_rule:
        return f"The search goes by Fréchet distance on val; {NO_USE}"
    captions = len(TASKS) * scale.val
    return (
        f"The search goes by composition accuracy on val; {NO_USE} val has {captions} captions, whose share has a "
        f"standard error of up to {0.5 / captions**0.5:.3f}: scales that differ by less are told apart by chance."
    )


def table(scale: Scale) -> Table:
    return Table(
        key="cf_table3c",
        rows=(
            Row(NONE, Training("t2i"), "guided", "none"),
            Row(AUTO, Training("t2i"), "autoguidance", "autoguidance"),
            Row(INDICATOR, Training("t2i"), "guided", "indicator"),
        ),
        numbers=(*quality(scale), SCALE),
        claims=(
            better("autoguidance helps (FID)", AUTO, NONE, FIDELITY, higher=False),
            better(
                "the indicator is better than autoguidance (FID)", INDICATOR, AUTO, FIDELITY, higher=False
            ),
            better("autoguidance helps (CLIP score)", AUTO, NONE, ALIGNMENT),
            better("the indicator is better than autoguidance (CLIP score)", INDICATOR, AUTO, ALIGNMENT),
        ),
        says=says(scale),
    )


if __name__ == "__main__":
    main(table)
