"""Which colour an object has, of the ten that GenEval's prompts name."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cf_eval.clip_encoders import ClipEncoder, clip_square
from cf_eval.geneval.objects import FoundObject, Picture
from cf_eval.geneval.prompts import COLOURS

# "#999", what the official evaluation lays around an object whose mask is known
AROUND = 0x99

TEMPLATES = (
    "a photo of a {colour} {label}",
    "a photo of a {colour}-colored {label}",
    "a photo of a {colour} object",
)


@runtime_checkable
class ColourClassifier(Protocol):
    """Names the colours of objects of one class in one picture. `name` goes into the result."""

    @property
    def name(self) -> str: ...

    def __call__(self, picture: Picture, things: Sequence[FoundObject]) -> Sequence[str]:
        """One of `COLOURS` for each object, in order."""
        ...


class ClipColours:
    """The official classifier: CLIP's nearest of ten colours, each the mean of three sentences that name the class.

    The official CLIP is OpenAI's ViT-L/14: open_clip_encoder("ViT-L-14-quickgelu", path).
    """

    def __init__(self, clip: ClipEncoder) -> None:
        self.clip = clip
        self._sentences: dict[str, Tensor] = {}

    @property
    def name(self) -> str:
        return f"nearest of {len(COLOURS)} by {self.clip.name}, three templates"

    def __call__(self, picture: Picture, things: Sequence[FoundObject]) -> list[str]:
        if not things:
            return []
        squares = [clip_square(cut_out(picture, thing)[None], self.clip.image_size) for thing in things]
        seen = self.clip.pictures(torch.cat(squares))
        nearest = (seen @ self._of_class(things[0].label).mT).argmax(1)
        return [COLOURS[i] for i in nearest.tolist()]

    def _of_class(self, label: str) -> Float[Tensor, "colours d"]:
        if label not in self._sentences:
            texts = [template.format(colour=c, label=label) for c in COLOURS for template in TEMPLATES]
            means = self.clip.texts(texts).unflatten(0, (len(COLOURS), len(TEMPLATES))).mean(1)
            self._sentences[label] = means / means.norm(dim=1, keepdim=True)
        return self._sentences[label]


# sRGB, 0 to 255: a plain example of each colour, for pictures as plain
PALETTE: Mapping[str, tuple[int, int, int]] = {
    "red": (215, 30, 35),
    "orange": (240, 130, 25),
    "yellow": (245, 215, 40),
    "green": (45, 150, 60),
    "blue": (40, 85, 200),
    "purple": (120, 50, 150),
    "pink": (245, 150, 185),
    "brown": (115, 70, 40),
    "black": (15, 15, 15),
    "white": (245, 245, 245),
}


class PaletteColours:
    """Without a network: each pixel votes for the nearest colour of a palette, in CIELAB. Not the official classifier.

    Where the object's mask is not known, the middle half of its box votes.
    """

    name = "votes of pixels for the nearest of a palette, CIELAB"

    def __call__(self, picture: Picture, things: Sequence[FoundObject]) -> list[str]:
        return [self._vote(picture, thing) for thing in things]

    def _vote(self, picture: Picture, thing: FoundObject) -> str:
        pixels = _object_pixels(picture, thing)
        palette = torch.tensor([PALETTE[name] for name in COLOURS], dtype=torch.uint8)
        nearest = torch.cdist(cielab(pixels), cielab(palette)).argmin(1)
        return COLOURS[int(nearest.bincount(minlength=len(COLOURS)).argmax())]


def cielab(rgb: Tensor) -> Float[Tensor, "n 3"]:
    """CIELAB under D65 of uint8 sRGB, (n, 3)   (IEC 61966-2-1; CIE 15)"""
    x = rgb.double() / 255
    linear = torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    to_xyz = torch.tensor(
        [
            [0.412453, 0.357580, 0.180423],
            [0.212671, 0.715160, 0.072169],
            [0.019334, 0.119193, 0.950227],
        ],
        dtype=torch.float64,
    )
    relative = linear @ to_xyz.T / torch.tensor([0.95047, 1.0, 1.08883], dtype=torch.float64)
    curve = torch.where(relative > 0.008856, relative.clamp(min=0) ** (1 / 3), 7.787 * relative + 16 / 116)
    fx, fy, fz = curve.unbind(1)
    return torch.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], 1)


def cut_out(picture: Picture, thing: FoundObject) -> UInt8[Tensor, "3 u v"]:
    """The box of an object, with grey outside its mask where that is known; at least one pixel."""
    if thing.mask is not None:
        if thing.mask.shape != picture.shape[1:]:
            raise ValueError(
                f"the mask of {thing.label} is {tuple(thing.mask.shape)}, the picture {tuple(picture.shape[1:])}"
            )
        picture = torch.where(thing.mask, picture, torch.full_like(picture, AROUND))
    h, w = picture.shape[1:]
    left, right = _span(thing.box[0], thing.box[2], w)
    top, bottom = _span(thing.box[1], thing.box[3], h)
    return picture[:, top:bottom, left:right]


def _span(low: float, high: float, length: int) -> tuple[int, int]:
    start = min(max(round(low), 0), length - 1)
    return start, min(max(round(high), start + 1), length)


def _object_pixels(picture: Picture, thing: FoundObject) -> Tensor:
    """(n, 3), uint8."""
    if thing.mask is not None and bool(thing.mask.any()):
        return picture[:, thing.mask].T
    left, top, right, bottom = thing.box
    dx, dy = (right - left) / 4, (bottom - top) / 4
    middle = FoundObject(thing.label, thing.score, (left + dx, top + dy, right - dx, bottom - dy))
    return cut_out(picture, middle).flatten(1).T
