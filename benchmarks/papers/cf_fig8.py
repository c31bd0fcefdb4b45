"""CrossFlow, Fig. 8: scales of the indicator and of autoguidance on test captions; none is chosen by them.

uv run python benchmarks/papers/cf_fig8.py --scale tiny
"""

from cf.claims import better
from cf.command import main
from cf.measures.guidance import SWEPT
from cf.measures.judged import ALIGNMENT, FIDELITY, quality
from cf.scale import Scale
from cf.spec import Curves, Row, Table, Training

AUTO = [s for s in SWEPT if s >= 1]
RUN = Training("t2i")


def table(scale: Scale) -> Table:
    return Table(
        key="cf_fig8",
        title="Fig. 8: guidance by the indicator",
        rows=(
            *(Row(f"indicator {s:g}", RUN, "sweep", f"indicator {s:g}") for s in SWEPT),
            *(Row(f"autoguidance {s:g}", RUN, "sweep", f"autoguidance {s:g}") for s in AUTO),
        ),
        numbers=quality(scale),
        claims=(
            better(
                "indicator 0 generates unconditionally, 1 conditionally",
                "indicator 1",
                "indicator 0",
                ALIGNMENT,
            ),
            better(
                "at scale 2 the indicator is better than autoguidance",
                "indicator 2",
                "autoguidance 2",
                ALIGNMENT,
            ),
            better(
                "guidance helps: scale 2 is better than none (FID)",
                "indicator 2",
                "indicator 1",
                FIDELITY,
                higher=False,
            ),
        ),
        says="The weak model of autoguidance is the checkpoint at a quarter of the steps. At scale tiny x_0 is "
        "contrasted with x_1 itself and lies near it, so that half a picture is there where the indicator is off.",
        curves=tuple(
            Curves(
                {
                    "indicator": [f"indicator {s:g}" for s in SWEPT],
                    "autoguidance": [f"autoguidance {s:g}" for s in AUTO],
                },
                SWEPT,
                "scale",
                number.name,
            )
            for number in reversed(quality(scale))
        ),
    )


if __name__ == "__main__":
    main(table)
