"""CrossFlow, Table 8: depth up to scale and shift, least-squares aligned, as in Marigold's protocol.

uv run python benchmarks/papers/cf_table8.py --scale tiny
"""

from itertools import product

from cf.claims import at_most, better, needs
from cf.command import main
from cf.measures.judged import reached
from cf.measures.numbers import DEPTH
from cf.scale import Scale
from cf.spec import Claim, Row, Table, Training

OURS, ENCODER, MEAN = "CrossFlow", "its encoder alone", "each pixel's mean"
RUN = Training("depth-affine")
SETS = ("kitti", "nyu", "eth3d", "scannet", "diode")
COLUMNS = {MEAN: "pixel mean", ENCODER: "ImageVE alone", OURS: "CrossFlow"}
PAR = "CrossFlow is on a par with Marigold, zero-shot on five sets"
SAYS = {
    "tiny": "Held-out scenes of captioned shapes, not another world: only the protocol is the paper's.",
    "small": "Held-out scenes of captioned shapes at 64 px, not another world: only the protocol is the paper's.",
    "paper": "Trained on Hypersim and Virtual KITTI; a row for every method on every test set.",
}


def rows(scale: Scale) -> tuple[Row, ...]:
    """On shapes one set; on the paper's data five, each in rows of its own."""
    if scale.name != "paper":
        return tuple(Row(row, RUN, "aligned-depth", column) for row, column in COLUMNS.items())
    return tuple(
        Row(f"{row} on {name}", RUN, "aligned-depth", f"{name}: {column}")
        for name, (row, column) in product(SETS, COLUMNS.items())
    )


def claims(scale: Scale) -> tuple[Claim, ...]:
    adds = "the flow adds to its encoder (ours)"
    if scale.name != "paper":
        zero_shot = (
            "needs Hypersim, Virtual KITTI and the five: `crossflow depth train --preset paper-zero-shot`"
        )
        return (better(adds, OURS, ENCODER, "abs_rel", higher=False), needs(PAR, zero_shot))
    return tuple(
        claim
        for name in SETS
        for claim in (
            better(f"{adds}: {name}", f"{OURS} on {name}", f"{ENCODER} on {name}", "abs_rel", higher=False),
            at_most(
                f"{PAR}: {name}",
                f"{OURS} on {name}",
                "abs_rel",
                reached("cf_table8", "CrossFlow", f"{name}_absrel", 0.0005),
                "AbsRel",
            ),
        )
    )


def table(scale: Scale) -> Table:
    return Table(
        key="cf_table8",
        rows=rows(scale),
        numbers=DEPTH,
        claims=claims(scale),
        says=SAYS[scale.name],
        paper_needs="Hypersim, Virtual KITTI and five test sets",
    )


if __name__ == "__main__":
    main(table)
