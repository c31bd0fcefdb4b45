"""CrossFlow, Table 4: captions of held-out pictures.

uv run python benchmarks/papers/cf_table4.py --scale tiny
"""

from cf.claims import better, needs
from cf.command import main
from cf.numbers import CAPTIONS
from cf.spec import Row, Table, Training

OURS, OTHER, TRUE = "CrossFlow", "another picture's caption", "a further true caption"
RUN = Training("caption")
TABLE = Table(
    key="cf_table4",
    rows=(
        Row(OTHER, RUN, "captions", "another_picture's"),
        Row(OURS, RUN, "captions", "written"),
        Row(TRUE, RUN, "captions", "a_true_one"),
    ),
    numbers=CAPTIONS,
    claims=(
        better(
            "the flow reads pictures: better than another picture's caption (ours)", OURS, OTHER, "cider_d"
        ),
        needs(
            "CrossFlow is on a par with non-autoregressive captioners (CIDEr 116.2 on COCO)",
            "needs COCO in Karpathy's split: `crossflow caption train --preset paper --data FOLDER`",
        ),
    ),
    says="Captions of shapes; METEOR and SPICE need their jars. Stopped long before it has learned all: "
    "`crossflow caption demo` trains on.",
    paper_needs="COCO in Karpathy's split",
)


if __name__ == "__main__":
    main(TABLE)
