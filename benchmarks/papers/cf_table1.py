"""CrossFlow, Table 1: CrossFlow against flow matching from noise with cross-attention, at equal size and budget.

uv run python benchmarks/papers/cf_table1.py --scale tiny
"""

from cf.claims import better
from cf.command import main
from cf.numbers import COMPOSITION, FRECHET, PARAMETERS
from cf.spec import Row, Table, Training

BASELINE, OURS = "Standard FM (Baseline)", "CrossFlow"
TABLE = Table(
    key="cf_table1",
    rows=(
        Row(BASELINE, Training("t2i-noise"), "guided", "indicator"),
        Row(OURS, Training("t2i"), "guided", "indicator"),
    ),
    numbers=(FRECHET, COMPOSITION, PARAMETERS),
    claims=(
        better("CrossFlow has the better FID", OURS, BASELINE, "frechet", higher=False),
        better("CrossFlow follows the text at least as well (CLIP score)", OURS, BASELINE, "composition"),
    ),
)

if __name__ == "__main__":
    main(TABLE)
