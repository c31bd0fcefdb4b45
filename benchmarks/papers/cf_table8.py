"""CrossFlow, Table 8: depth up to scale and shift, least-squares aligned, as in Marigold's protocol.

uv run python benchmarks/papers/cf_table8.py --scale tiny
"""

from cf.claims import better, needs
from cf.command import main
from cf.numbers import DEPTH
from cf.spec import Row, Table, Training

OURS, ENCODER, MEAN = "CrossFlow", "its encoder alone", "each pixel's mean"
RUN = Training("depth-affine")
TABLE = Table(
    key="cf_table8",
    rows=(
        Row(MEAN, RUN, "aligned-depth", "pixel mean"),
        Row(ENCODER, RUN, "aligned-depth", "ImageVE alone"),
        Row(OURS, RUN, "aligned-depth", "CrossFlow"),
    ),
    numbers=DEPTH,
    claims=(
        better("the flow adds to its encoder (ours)", OURS, ENCODER, "abs_rel", higher=False),
        needs(
            "CrossFlow is on a par with Marigold, zero-shot on five sets",
            "needs Hypersim, Virtual KITTI and the five: `crossflow depth train --preset paper-zero-shot`",
        ),
    ),
    says="Held-out scenes of captioned shapes, not another world: only the protocol is the paper's.",
    paper_needs="Hypersim, Virtual KITTI and five test sets",
)


if __name__ == "__main__":
    main(TABLE)
