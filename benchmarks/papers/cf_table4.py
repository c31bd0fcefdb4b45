"""CrossFlow, Table 4: captions of held-out pictures.

uv run python benchmarks/papers/cf_table4.py --scale tiny
"""

from cf.claims import at_least, better, needs
from cf.command import main
from cf.measures.judged import reached
from cf.measures.numbers import CAPTIONS
from cf.scale import Scale
from cf.spec import Row, Table, Training
from cf_apps.data.sources import SHAPES

OURS, OTHER, TRUE = "CrossFlow", "another picture's caption", "a further true caption"
RUN = Training("caption")
CIDER = reached("cf_table4", "CrossFlow", "cider") / 100  # the paper prints it a hundredfold


PAR = "CrossFlow is on a par with non-autoregressive captioners (CIDEr 116.2 on COCO)"
SAYS = {
    "tiny": "Captions of shapes; METEOR and SPICE need their jars. Stopped long before it has learned all: "
    "`crossflow caption demo` trains on.",
    "small": "Captions of emoji in subwords; METEOR and SPICE need their jars.",
    "paper": "COCO in Karpathy's split; METEOR and SPICE need their jars: `crossflow caption evaluate` takes them.",
}


def table(scale: Scale) -> Table:
    """Only captioned shapes know a further true caption of a picture."""
    shapes = scale.ready(RUN).recipe.data == SHAPES
    return Table(
        key="cf_table4",
        rows=(
            Row(OTHER, RUN, "captions", "another_picture's"),
            Row(OURS, RUN, "captions", "written"),
            *([Row(TRUE, RUN, "captions", "a_true_one")] if shapes else []),
        ),
        numbers=CAPTIONS,
        claims=(
            better(
                "the flow reads pictures: better than another picture's caption (ours)",
                OURS,
                OTHER,
                "cider_d",
            ),
            at_least(PAR, OURS, "cider_d", CIDER, "CIDEr-D")
            if scale.name == "paper"
            else needs(
                PAR, "needs COCO in Karpathy's split: `crossflow caption train --preset paper --data FOLDER`"
            ),
        ),
        says=SAYS[scale.name],
        paper_needs="COCO in Karpathy's split",
    )


if __name__ == "__main__":
    main(table)
