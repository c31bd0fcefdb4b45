"""CrossFlow, Table 5: depth in the unit of the data, beside what is known without the flow.

uv run python benchmarks/papers/cf_table5.py --scale tiny
"""

from cf.claims import at_most, better, needs
from cf.command import main
from cf.measures.judged import reached
from cf.measures.numbers import DEPTH
from cf.scale import Scale
from cf.spec import Claim, Row, Table, Training

OURS, ENCODER, MEAN = "CrossFlow", "its encoder alone", "each pixel's mean"
SETS = {"depth": "", "depth-nyu": " on NYUv2"}  # recipe: what its rows say
PAR = "CrossFlow is on a par with depth networks of its time (AbsRel 0.053 on KITTI, 0.094 on NYUv2)"
SAYS = {
    "tiny": "Depth of captioned shapes, over the objects' pixels.",
    "small": "Depth of captioned shapes at 64 px, over the objects' pixels.",
    "paper": "KITTI in Eigen's split; NYUv2 in the rows that say so.",
}
COLUMNS = {MEAN: "pixel mean", ENCODER: "ImageVE alone", OURS: "CrossFlow"}


def par(scale: Scale) -> tuple[Claim, ...]:
    """By the paper's numbers, on the paper's data."""
    if scale.name != "paper":
        data = "needs KITTI and NYUv2: `crossflow depth train --preset paper-kitti --data kitti:FOLDER`"
        return (needs(PAR, data),)
    limits = {"KITTI": (OURS, "kitti_absrel"), "NYUv2": (f"{OURS} on NYUv2", "nyu_absrel")}
    return tuple(
        at_most(f"{PAR}: {name}", row, "abs_rel", reached("cf_table5", "CrossFlow", column, 0.0005), "AbsRel")
        for name, (row, column) in limits.items()
    )


def table(scale: Scale) -> Table:
    """NYUv2 in rows of its own where the scale has it."""
    sets = {recipe: name for recipe, name in SETS.items() if recipe in scale.recipes}
    return Table(
        key="cf_table5",
        rows=tuple(
            Row(f"{row}{name}", Training(recipe), "depth", column)
            for recipe, name in sets.items()
            for row, column in COLUMNS.items()
        ),
        numbers=DEPTH,
        claims=(
            better("the flow adds to its encoder (ours)", OURS, ENCODER, "abs_rel", higher=False),
            *par(scale),
        ),
        says=SAYS[scale.name],
        paper_needs="KITTI and NYUv2",
    )


if __name__ == "__main__":
    main(table)
