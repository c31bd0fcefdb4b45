"""CrossFlow, Fig. 4, 10 and 11: the way between two captions; see the figure page for pictures.

uv run python benchmarks/papers/cf_fig4.py --scale tiny
"""

from cf.claims import at_most
from cf.command import main
from cf.scale import Scale
from cf.spec import Number, Row, Table, Training

WALK = "CrossFlow"


def table(scale: Scale) -> Table:
    return Table(
        key="cf_fig4",
        title="Fig. 4: linear interpolation between two text latents",
        rows=(Row(WALK, Training(scale.best), "walk", "walk"),),
        numbers=(
            Number("largest_step", "largest of 8 steps, share of the way", higher_is_better=False),
            Number("detour", "length of the way over its ends' distance", higher_is_better=False),
        ),
        claims=(
            at_most(
                "linear interpolation between two z_0 gives smooth images",
                WALK,
                "largest_step",
                0.5,
                "largest of eight steps as a share of the way (0.125 is even, 1 a switch)",
            ),
        ),
        says="32 pairs of val captions, nine pictures each. The paper shows pictures; the limit is ours.",
    )


if __name__ == "__main__":
    main(table)
