"""CrossFlow, Table 3b: what trains the text encoder besides the flow; no guidance.

uv run python benchmarks/papers/cf_table3b.py --scale tiny
"""

from cf.claims import better
from cf.command import main
from cf.numbers import COMPOSITION, FRECHET
from cf.spec import Row, Table, Training

WORDS, TEXT, IMAGE = "T-T Recon.", "T-T Contrast.", "I-T Contrast."
TOWER = "I-T Contrast., trained tower"
TABLE = Table(
    key="cf_table3b",
    rows=(
        Row(WORDS, Training("t2i", {"loss.encoder": "reconstruction"}), "unguided", "none"),
        Row(TEXT, Training("t2i", {"loss.encoder": "text-text"}), "unguided", "none"),
        Row(IMAGE, Training("t2i"), "unguided", "none"),
        Row(TOWER, Training("t2i-tower"), "unguided", "none"),
    ),
    numbers=(FRECHET, COMPOSITION),
    claims=(
        better(
            "text contrast is better than text reconstruction (FID)", TEXT, WORDS, "frechet", higher=False
        ),
        better(
            "image-text contrast is better than text contrast (FID)", IMAGE, TEXT, "frechet", higher=False
        ),
        better("text contrast is better than text reconstruction (CLIP score)", TEXT, WORDS, "composition"),
        better("image-text contrast is better than text contrast (CLIP score)", IMAGE, TEXT, "composition"),
    ),
    says="I-T Contrast. is against x_1 itself, which at this scale needs no image tower; the row below has one.",
)


if __name__ == "__main__":
    main(TABLE)
