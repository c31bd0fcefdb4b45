"""CrossFlow, Table 3c: no guidance, autoguidance, and the indicator; scales and checkpoint searched on val.

uv run python benchmarks/papers/cf_table3c.py --scale tiny
"""

from cf.claims import better
from cf.command import main
from cf.numbers import COMPOSITION, FRECHET, SCALE
from cf.spec import Row, Table, Training

NONE, AUTO, INDICATOR = "No guidance", "AG", "CFG indicator"
TABLE = Table(
    key="cf_table3c",
    rows=(
        Row(NONE, Training("t2i"), "guided", "none"),
        Row(AUTO, Training("t2i"), "autoguidance", "autoguidance"),
        Row(INDICATOR, Training("t2i"), "guided", "indicator"),
    ),
    numbers=(FRECHET, COMPOSITION, SCALE),
    claims=(
        better("autoguidance helps (FID)", AUTO, NONE, "frechet", higher=False),
        better("the indicator is better than autoguidance (FID)", INDICATOR, AUTO, "frechet", higher=False),
        better("autoguidance helps (CLIP score)", AUTO, NONE, "composition"),
        better("the indicator is better than autoguidance (CLIP score)", INDICATOR, AUTO, "composition"),
    ),
    says="The search goes by composition accuracy on val; a scale of 1 means that it found no use for guidance.",
)


if __name__ == "__main__":
    main(TABLE)
