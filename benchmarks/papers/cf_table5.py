"""CrossFlow, Table 5: depth in the unit of the data, beside what is known without the flow.

uv run python benchmarks/papers/cf_table5.py --scale tiny
"""

from cf.claims import better, needs
from cf.command import main
from cf.numbers import DEPTH
from cf.spec import Row, Table, Training

OURS, ENCODER, MEAN = "CrossFlow", "its encoder alone", "each pixel's mean"
RUN = Training("depth")
TABLE = Table(
    key="cf_table5",
    rows=(
        Row(MEAN, RUN, "depth", "pixel mean"),
        Row(ENCODER, RUN, "depth", "ImageVE alone"),
        Row(OURS, RUN, "depth", "CrossFlow"),
    ),
    numbers=DEPTH,
    claims=(
        better("the flow adds to its encoder (ours)", OURS, ENCODER, "abs_rel", higher=False),
        needs(
            "CrossFlow is on a par with depth networks of its time (AbsRel 0.053 on KITTI, 0.094 on NYUv2)",
            "needs KITTI and NYUv2: `crossflow depth train --preset paper-kitti --data kitti:FOLDER`",
        ),
    ),
    says="Depth of captioned shapes, over the objects' pixels.",
    paper_needs="KITTI and NYUv2",
)


if __name__ == "__main__":
    main(TABLE)
