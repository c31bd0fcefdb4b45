"""CrossFlow, Table 3e: text encoder and flow trained one after the other, together, or both; guidance searched on val.

uv run python benchmarks/papers/cf_table3e.py --scale tiny
"""

from cf.claims import better
from cf.command import main
from cf.measures.judged import ALIGNMENT, FIDELITY, quality
from cf.measures.numbers import SCALE
from cf.scale import Scale
from cf.spec import Row, Table, Training

APART, JOINT, BOTH = "2-stage separate training", "Joint training", "2-stage w/ joint finetuning"
STRATEGIES = {APART: "two-stage", JOINT: "joint", BOTH: "two-stage-joint"}


def table(scale: Scale) -> Table:
    return Table(
        key="cf_table3e",
        rows=tuple(
            Row(name, Training("t2i", {"strategy": kind}), "guided", "indicator")
            for name, kind in STRATEGIES.items()
        ),
        numbers=(*quality(scale), SCALE),
        claims=(
            better("joint training is better than two stages (FID)", JOINT, APART, FIDELITY, higher=False),
            better(
                "a first stage and then joint training is better still (FID)",
                BOTH,
                JOINT,
                FIDELITY,
                higher=False,
            ),
            better("joint training is better than two stages (CLIP score)", JOINT, APART, ALIGNMENT),
            better(
                "a first stage and then joint training is better still (CLIP score)", BOTH, JOINT, ALIGNMENT
            ),
        ),
        says="Every strategy has the same number of steps in all; a first stage takes a quarter of them from the flow. "
        "The paper's finetuning starts from an encoder that was trained apart, so that its flow has all steps.",
    )


if __name__ == "__main__":
    main(table)
