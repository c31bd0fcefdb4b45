"""CrossFlow, Table 6: small pictures made four times as wide, with three networks of one size and budget.

uv run python benchmarks/papers/cf_table6.py --scale tiny
"""

from cf.claims import better
from cf.command import main
from cf.numbers import LARGER
from cf.spec import Row, Table, Training

BICUBIC, REGRESSION, FLOW, OURS = "Bicubic", "Regression", "Flow Matching", "CrossFlow"
SHARPNESS = "frechet_distance_of_sharpness"
TABLE = Table(
    key="cf_table6",
    rows=(
        Row(BICUBIC, Training("superres-crossflow"), "superres", "bicubic"),
        Row(REGRESSION, Training("superres-regression"), "superres"),
        Row(FLOW, Training("superres-concat"), "superres"),
        Row(OURS, Training("superres-crossflow"), "superres"),
    ),
    numbers=LARGER,
    claims=(
        better("CrossFlow has a better FID than flow matching", OURS, FLOW, SHARPNESS, higher=False),
        better("flow matching has a better FID than regression", FLOW, REGRESSION, SHARPNESS, higher=False),
        better("CrossFlow has a better PSNR than flow matching", OURS, FLOW, "psnr"),
        better("regression has the best PSNR", REGRESSION, OURS, "psnr"),
    ),
    says="Captioned shapes, 8 px to 32. An 8 px picture of three shapes leaves little open, so a regression is nearly "
    "right and hardly blurs.",
    paper_needs="ImageNet and Inception weights",
)


if __name__ == "__main__":
    main(TABLE)
