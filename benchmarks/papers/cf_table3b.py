"""CrossFlow, Table 3b: what trains the text encoder besides the flow; no guidance.

uv run python benchmarks/papers/cf_table3b.py --scale tiny
"""

from cf.claims import better
from cf.command import main
from cf.measures.judged import ALIGNMENT, FIDELITY, quality
from cf.scale import Scale
from cf.spec import Row, Table, Training

WORDS, TEXT, IMAGE = "T-T Recon.", "T-T Contrast.", "I-T Contrast."
TOWER = "I-T Contrast., trained tower"


TRAINED = "t2i-tower"
SAYS = {
    "tiny": "I-T Contrast. is against x_1 itself, which at this scale needs no image tower; the row below has one.",
}


def table(scale: Scale) -> Table:
    """With a row for a trained image tower where the scale's own contrast has none."""
    tower = [Row(TOWER, Training(TRAINED), "unguided", "none")] if TRAINED in scale.recipes else []
    return Table(
        key="cf_table3b",
        rows=(
            Row(WORDS, Training("t2i", {"loss.encoder": "reconstruction"}), "unguided", "none"),
            Row(TEXT, Training("t2i", {"loss.encoder": "text-text"}), "unguided", "none"),
            Row(IMAGE, Training("t2i"), "unguided", "none"),
            *tower,
        ),
        numbers=quality(scale),
        claims=(
            better(
                "text contrast is better than text reconstruction (FID)", TEXT, WORDS, FIDELITY, higher=False
            ),
            better(
                "image-text contrast is better than text contrast (FID)", IMAGE, TEXT, FIDELITY, higher=False
            ),
            better("text contrast is better than text reconstruction (CLIP score)", TEXT, WORDS, ALIGNMENT),
            better("image-text contrast is better than text contrast (CLIP score)", IMAGE, TEXT, ALIGNMENT),
        ),
        says=SAYS.get(scale.name, ""),
    )


if __name__ == "__main__":
    main(table)
