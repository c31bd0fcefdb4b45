"""How a depth number came about, as data: which pixels, which caps, which alignment. A row is a protocol.

CrossFlow's table 5 states the test sets only ("Eigen split"), not the crop; its rows from AdaBins on use
`kitti_adabins` and `nyu`. Table 8 follows Marigold's evaluation.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from cf_eval.depth.alignment import Alignment
from cf_eval.depth.crops import CROPS

FRAMES = ("whole", "kb", "kb_pasted")
MASKS = ("range", "given")
NON_FINITE = ("refuse", "to_caps")


@dataclass(frozen=True)
class DepthProtocol:
    """Everything that moves a depth number and is not in the formulas.

    min_depth, max_depth: metres. Ground truth counts strictly between them; predictions are clipped to them.
    frame: "whole"; "kb": the KITTI benchmark's window of both maps; "kb_pasted": the whole ground truth, with
    the prediction for the window laid over zeros, so that pixels outside it count as min_depth.
    crop: see `crops`. alignment: see `alignment`.
    mask: "range": where the truth lies between the caps, and in the mask that is given, if any; "given": that
    mask alone.
    non_finite: what NaN and infinity in a prediction mean: "refuse": an error; "to_caps": min_depth and max_depth.
    images: how many pictures the paper's test set has, 0 if there is no such number.
    """

    min_depth: float
    max_depth: float
    crop: str = "none"
    frame: str = "whole"
    alignment: Alignment = field(default_factory=Alignment)
    mask: str = "range"
    non_finite: str = "refuse"
    images: int = 0

    def __post_init__(self) -> None:
        choices = (
            ("crop", self.crop, CROPS),
            ("frame", self.frame, FRAMES),
            ("mask", self.mask, MASKS),
            ("non_finite", self.non_finite, NON_FINITE),
        )
        for name, value, known in choices:
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}; known: {', '.join(known)}")
        if not 0 <= self.min_depth < self.max_depth:
            raise ValueError(
                f"caps must be 0 <= min_depth < max_depth, got {self.min_depth} and {self.max_depth}"
            )

    def __str__(self) -> str:
        caps = f"{self.min_depth:g} < depth < {self.max_depth:g} m"
        pixels = f"frame {self.frame}, crop {self.crop}, mask {self.mask}"
        return f"{caps}; {pixels}; alignment {self.alignment}; mean over pictures"


_TO_DEPTH = Alignment("least_squares_depth")

PROTOCOLS: Mapping[str, DepthProtocol] = {
    # metric depth (table 5); 697 pictures of the Eigen split, of which 652 have the improved ground truth
    "kitti_adabins": DepthProtocol(1e-3, 80.0, "garg", "kb", non_finite="to_caps", images=652),
    "kitti_bts": DepthProtocol(1e-3, 80.0, "garg", "kb_pasted", non_finite="to_caps", images=652),
    "kitti_eigen": DepthProtocol(1e-3, 80.0, "eigen", "whole", non_finite="to_caps", images=652),
    "nyu": DepthProtocol(1e-3, 10.0, "nyu", non_finite="to_caps", images=654),
    # affine-invariant depth (table 8)
    "kitti_marigold": DepthProtocol(1e-5, 80.0, "eigen", "kb", _TO_DEPTH, images=652),
    "nyu_marigold": DepthProtocol(1e-3, 10.0, "nyu", alignment=_TO_DEPTH, images=654),
    "eth3d_marigold": DepthProtocol(
        1e-5, math.inf, alignment=Alignment("least_squares_depth", 1024, "marigold_width_only"), images=454
    ),
    "scannet_marigold": DepthProtocol(1e-3, 10.0, alignment=_TO_DEPTH, images=800),
    "diode_marigold": DepthProtocol(0.6, 350.0, alignment=_TO_DEPTH, mask="given", images=771),
}


def depth_protocol(name: str) -> DepthProtocol:
    """The protocol of that name. Raises ValueError listing the known ones."""
    if name not in PROTOCOLS:
        raise ValueError(f"unknown depth protocol {name!r}; known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
