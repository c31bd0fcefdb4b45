"""CrossFlow, Table 3a: the source as a point, with fixed noise, or as a learned distribution; no guidance.

uv run python benchmarks/papers/cf_table3a.py --scale tiny
"""

from cf.claims import better
from cf.command import main
from cf.numbers import COMPOSITION, FRECHET
from cf.spec import Row, Table, Training

POINT, NOISE, LEARNED = "Encoder", "Encoder + noise", "Variational Encoder"
KINDS = {POINT: "none", NOISE: "noise", LEARNED: "learned"}
TABLE = Table(
    key="cf_table3a",
    rows=tuple(
        Row(name, Training("t2i", {"text_ve.variation": kind}), "unguided", "none")
        for name, kind in KINDS.items()
    ),
    numbers=(FRECHET, COMPOSITION),
    claims=(
        better("noise on the source helps (FID)", NOISE, POINT, "frechet", higher=False),
        better(
            "a learned distribution is better than fixed noise (FID)", LEARNED, NOISE, "frechet", higher=False
        ),
        better("noise on the source helps (CLIP score)", NOISE, POINT, "composition"),
        better(
            "a learned distribution is better than fixed noise (CLIP score)", LEARNED, NOISE, "composition"
        ),
    ),
    says="The encoder's loss is the image-text contrast in all rows; the paper's rows have text reconstruction, with "
    "which next to nothing is drawn right in so few steps (Table 3b).",
)


if __name__ == "__main__":
    main(TABLE)
