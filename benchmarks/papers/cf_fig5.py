"""CrossFlow, Fig. 5 and 12: sums of captions; see the figure page for pictures.

uv run python benchmarks/papers/cf_fig5.py --scale tiny
"""

from cf.claims import better
from cf.command import main
from cf.spec import Number, Row, Table, Training

SUM, FIRST, SAID = "the sum", "its first term", "said in words"
RUN = Training("t2i")
TABLE = Table(
    key="cf_fig5",
    title="Fig. 5: arithmetic of text latents",
    rows=(
        Row(FIRST, RUN, "arithmetic", "first"),
        Row(SUM, RUN, "arithmetic", "sum"),
        Row(SAID, RUN, "arithmetic", "said"),
    ),
    numbers=(Number("right", "share that shows what the sum means"),),
    claims=(better("sums and differences of z_0 change the picture accordingly", SUM, FIRST, "right"),),
    says="48 sums: a red circle + a blue square - a red square, all at one place, is to be a blue circle there.",
)


if __name__ == "__main__":
    main(TABLE)
