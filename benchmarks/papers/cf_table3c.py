"""CrossFlow, Table 3c: no guidance, autoguidance, and the indicator; scales and checkpoint searched on val.

uv run python benchmarks/papers/cf_table3c.py --scale tiny
"""

from cf.claims import better
from cf.command import main
from cf.measures.judged import ALIGNMENT, FIDELITY, quality
from cf.measures.numbers import SCALE
from cf.scale import Scale
from cf.spec import Row, Table, Training

NONE, AUTO, INDICATOR = "No guidance", "AG", "CFG indicator"


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
        says=f"The search goes by {'composition accuracy' if scale.by_rule else 'Fréchet distance'} on val; a scale of "
        "1 means that it found no use for guidance.",
    )


if __name__ == "__main__":
    main(table)
