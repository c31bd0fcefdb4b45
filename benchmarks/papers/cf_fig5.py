"""CrossFlow, Fig. 5 and 12: sums of captions; see the figure page for pictures.

uv run python benchmarks/papers/cf_fig5.py --scale tiny
"""

from cf.claims import better
from cf.command import main
from cf.scale import Scale
from cf.spec import Number, Row, Table, Training

SUM, FIRST, SAID = "the sum", "its first term", "said in words"
SAYS = {
    "tiny": "48 sums: a red circle + a blue square - a red square, all at one place, is to be a blue circle there."
}
OTHERS = (
    "48 sums: a red heart + a blue book - a red book is to be nearer to a blue heart than to a red one, which only "
    "--clip can say."
)


def table(scale: Scale) -> Table:
    run = Training(scale.best)
    return Table(
        key="cf_fig5",
        title="Fig. 5: arithmetic of text latents",
        rows=(
            Row(FIRST, run, "arithmetic", "first"),
            Row(SUM, run, "arithmetic", "sum"),
            Row(SAID, run, "arithmetic", "said"),
        ),
        numbers=(Number("right", "share that shows what the sum means"),),
        claims=(better("sums and differences of z_0 change the picture accordingly", SUM, FIRST, "right"),),
        says=SAYS.get(scale.name, OTHERS),
    )


if __name__ == "__main__":
    main(table)
