"""CrossFlow, Fig. 8: scales of the indicator and of autoguidance on test captions; none is chosen by them.

uv run python benchmarks/papers/cf_fig8.py --scale tiny
"""

from cf.claims import better
from cf.command import main
from cf.measures_t2i import SWEPT
from cf.numbers import COMPOSITION, FRECHET
from cf.spec import Curves, Row, Table, Training

AUTO = [scale for scale in SWEPT if scale >= 1]
RUN = Training("t2i")
TABLE = Table(
    key="cf_fig8",
    title="Fig. 8: guidance by the indicator",
    rows=(
        *(Row(f"indicator {scale:g}", RUN, "sweep", f"indicator {scale:g}") for scale in SWEPT),
        *(Row(f"autoguidance {scale:g}", RUN, "sweep", f"autoguidance {scale:g}") for scale in AUTO),
    ),
    numbers=(FRECHET, COMPOSITION),
    claims=(
        better(
            "indicator 0 generates unconditionally, 1 conditionally",
            "indicator 1",
            "indicator 0",
            "composition",
        ),
        better(
            "at scale 2 the indicator is better than autoguidance",
            "indicator 2",
            "autoguidance 2",
            "composition",
        ),
        better(
            "guidance helps: scale 2 is better than none (FID)",
            "indicator 2",
            "indicator 1",
            "frechet",
            higher=False,
        ),
    ),
    says="The weak model of autoguidance is the checkpoint at a quarter of the steps.",
    curves=(
        Curves(
            {
                "indicator": [f"indicator {s:g}" for s in SWEPT],
                "autoguidance": [f"autoguidance {s:g}" for s in AUTO],
            },
            SWEPT,
            "scale",
            "composition",
        ),
        Curves(
            {
                "indicator": [f"indicator {s:g}" for s in SWEPT],
                "autoguidance": [f"autoguidance {s:g}" for s in AUTO],
            },
            SWEPT,
            "scale",
            "frechet",
        ),
    ),
)


if __name__ == "__main__":
    main(TABLE)
