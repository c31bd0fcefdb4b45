"""Which part of a depth map is scored. Papers that name the same data set score different pixels of it.

    eigen    fractions of the picture, Eigen et al. 2014
    garg     fractions of the picture, Garg et al. 2016: starts lower and reaches further down
    nyu      rows 45 to 470 and columns 41 to 600 of a 480 x 640 picture
    kb       the 352 x 1216 window at the bottom centre, to which the KITTI benchmark crops its pictures

`kb` changes the size of the picture and is a frame (`kb_crop`); the others only leave pixels out (`CROPS`).
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

KB_HEIGHT, KB_WIDTH = 352, 1216
NYU_HEIGHT, NYU_WIDTH = 480, 640

Window = tuple[int, int, int, int]


def _fractions(top: float, bottom: float, left: float, right: float) -> Callable[[int, int], Window]:
    return lambda h, w: (int(top * h), int(bottom * h), int(left * w), int(right * w))


def _whole(h: int, w: int) -> Window:
    return 0, h, 0, w


def _nyu(h: int, w: int) -> Window:
    if (h, w) != (NYU_HEIGHT, NYU_WIDTH):
        raise ValueError(
            f"the nyu crop is in pixels of a {NYU_HEIGHT} x {NYU_WIDTH} depth map, got {h} x {w}; "
            "score at the size of the ground truth"
        )
    return 45, 471, 41, 601


# Each gives (first row, row after the last, first column, column after the last) of an h x w picture.
CROPS: Mapping[str, Callable[[int, int], Window]] = {
    "none": _whole,
    "eigen": _fractions(0.3324324, 0.91351351, 0.0359477, 0.96405229),
    "garg": _fractions(0.40810811, 0.99189189, 0.03594771, 0.96405229),
    "nyu": _nyu,
}


def crop_mask(crop: str, h: int, w: int) -> Bool[Tensor, "h w"]:
    """True on the pixels of an h x w depth map that the crop scores."""
    if crop not in CROPS:
        raise ValueError(f"unknown crop {crop!r}; known: {', '.join(CROPS)}")
    top, bottom, left, right = CROPS[crop](h, w)
    mask = torch.zeros(h, w, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def kb_window(h: int, w: int) -> Window:
    """Where the KITTI benchmark's 352 x 1216 window lies in an h x w picture: at the bottom, in the middle."""
    if h < KB_HEIGHT or w < KB_WIDTH:
        raise ValueError(
            f"the KITTI benchmark crop needs at least {KB_HEIGHT} x {KB_WIDTH} pixels, got {h} x {w}"
        )
    top, left = h - KB_HEIGHT, (w - KB_WIDTH) // 2
    return top, h, left, left + KB_WIDTH


def kb_crop(picture: Shaped[Tensor, "*c h w"]) -> Shaped[Tensor, "*c 352 1216"]:
    """The KITTI benchmark's window of pictures or depth maps; one of that size already stays as it is."""
    top, bottom, left, right = kb_window(*picture.shape[-2:])
    return picture[..., top:bottom, left:right]


def kb_paste(window: Shaped[Tensor, "352 1216"], h: int, w: int) -> Shaped[Tensor, "h w"]:
    """An h x w picture of zeros with the window where `kb_crop` would take it from (BTS's evaluation)."""
    top, bottom, left, right = kb_window(h, w)
    picture = window.new_zeros(h, w)
    picture[top:bottom, left:right] = window
    return picture
