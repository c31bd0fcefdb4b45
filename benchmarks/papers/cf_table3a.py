"""CrossFlow, Table 3a: the source as a point, with fixed noise, or as a learned distribution; no guidance.

uv run python benchmarks/papers/cf_table3a.py --scale tiny
"""

from cf.claims import better
from cf.command import main
from cf.measures.judged import ALIGNMENT, FIDELITY, quality
from cf.scale import Scale
from cf.spec import Row, Table, Training

POINT, NOISE, LEARNED = "Encoder", "Encoder + noise", "Variational Encoder"
KINDS = {POINT: "none", NOISE: "noise", LEARNED: "learned"}


CONTRAST = (
    "The encoder's loss is the image-text contrast in all rows; the paper's rows have text reconstruction"
)
SAYS = {
    "tiny": f"{CONTRAST}, with which next to nothing is drawn right in so few steps (Table 3b).",
    "small": f"{CONTRAST}.",
}
LOSSES = {"paper": {"loss.encoder": "reconstruction"}}  # as at the other scales where it is not named


def table(scale: Scale) -> Table:
    loss = LOSSES.get(scale.name, {})
    return Table(
        key="cf_table3a",
        rows=tuple(
            Row(name, Training("t2i", {"text_ve.variation": kind, **loss}), "unguided", "none")
            for name, kind in KINDS.items()
        ),
        numbers=quality(scale),
        claims=(
            better("noise on the source helps (FID)", NOISE, POINT, FIDELITY, higher=False),
            better(
                "a learned distribution is better than fixed noise (FID)",
                LEARNED,
                NOISE,
                FIDELITY,
                higher=False,
            ),
            better("noise on the source helps (CLIP score)", NOISE, POINT, ALIGNMENT),
            better(
                "a learned distribution is better than fixed noise (CLIP score)", LEARNED, NOISE, ALIGNMENT
            ),
        ),
        says=SAYS.get(scale.name, ""),
    )


if __name__ == "__main__":
    main(table)
