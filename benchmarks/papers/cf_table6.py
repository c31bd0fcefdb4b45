"""CrossFlow, Table 6: small pictures made four times as wide, with three networks of one size and budget.

uv run python benchmarks/papers/cf_table6.py --scale tiny
"""

from cf.claims import better
from cf.command import main
from cf.measures.judged import FID
from cf.measures.numbers import LARGER
from cf.scale import Scale
from cf.spec import Row, Table, Training

BICUBIC, REGRESSION, FLOW, OURS = "Bicubic", "Regression", "Flow Matching", "CrossFlow"
SHARPNESS = "frechet_distance_of_sharpness"


SAYS = {
    "tiny": "Captioned shapes, 8 px to 32. An 8 px picture of three shapes leaves little open, so a regression is "
    "nearly right and hardly blurs.",
    "small": "Emoji, 16 px to 64.",
    "paper": "ImageNet, 64 px to 256.",
}
LOOKS = ("fid", SHARPNESS)  # of a claim about FID, the first that was measured


def table(scale: Scale) -> Table:
    fid = () if scale.inception is None else (FID,)
    return Table(
        key="cf_table6",
        rows=(
            Row(BICUBIC, Training("superres-crossflow"), "superres", "bicubic"),
            Row(REGRESSION, Training("superres-regression"), "superres"),
            Row(FLOW, Training("superres-concat"), "superres"),
            Row(OURS, Training("superres-crossflow"), "superres"),
        ),
        numbers=(*fid, *LARGER),
        claims=(
            better("CrossFlow has a better FID than flow matching", OURS, FLOW, LOOKS, higher=False),
            better("flow matching has a better FID than regression", FLOW, REGRESSION, LOOKS, higher=False),
            better("CrossFlow has a better PSNR than flow matching", OURS, FLOW, "psnr"),
            better("regression has the best PSNR", REGRESSION, OURS, "psnr"),
        ),
        says=SAYS[scale.name],
        paper_needs="ImageNet and Inception weights",
    )


if __name__ == "__main__":
    main(table)
