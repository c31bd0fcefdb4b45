"""What is done to a picture before a network sees it, by the name of the tool whose numbers it gives."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cf_eval.images.resize import RESIZERS

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def bytes_of(*values: float) -> tuple[float, ...]:
    """Constants for pictures of 0..1, for those of 0..255."""
    return tuple(255 * value for value in values)


@dataclass(frozen=True)
class Preparation:
    """8-bit pictures to what a network reads: resize to size x size, then (x - shift) / scale, x in 0..255.

    shift, scale: one number for all channels, or one each. rounding: how floats became bytes before ("round" to
    the nearest as a saved file does, or "truncate").
    """

    resize: str
    size: int
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    rounding: str = "round"

    def __post_init__(self) -> None:
        if self.resize not in RESIZERS:
            raise ValueError(f"unknown resize {self.resize!r}; known: {', '.join(RESIZERS)}")
        if self.rounding not in ROUNDINGS:
            raise ValueError(f"unknown rounding {self.rounding!r}; known: {', '.join(ROUNDINGS)}")
        if self.size < 1:
            raise ValueError(f"size must be at least 1, got {self.size}")

    def __call__(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 s s"]:
        """What the network reads."""
        x = RESIZERS[self.resize](images.float(), (self.size, self.size))
        shift, scale = (torch.tensor(v, device=x.device).view(-1, 1, 1) for v in (self.shift, self.scale))
        return (x - shift) / scale

    def __str__(self) -> str:
        shift, scale = (" ".join(f"{v:.6g}" for v in values) for values in (self.shift, self.scale))
        return f"{self.resize} {self.size}, (x - {shift}) / {scale}, floats to bytes by {self.rounding}"


# x in 0..1 to the nearest level, halves up, as torchvision's save_image; or the next level below, as torchmetrics
ROUNDINGS = {"round": 0.5, "truncate": 0.0}

INCEPTION_PROTOCOLS = {
    #                              resize                size   shift      scale      floats
    "pytorch-fid":    Preparation("half-pixel-bilinear", 299, (127.5,), (127.5,)),
    "torch-fidelity": Preparation("tf1-bilinear",        299, (128.0,), (128.0,)),
    "clean":          Preparation("pil-bicubic",         299, (128.0,), (128.0,)),
    "torchmetrics":   Preparation("antialias-bilinear",  299, (128.0,), (128.0,), "truncate"),
}  # fmt: skip


def inception_protocol(name: str) -> Preparation:
    """By name. Raises ValueError that lists the names."""
    if name not in INCEPTION_PROTOCOLS:
        raise ValueError(f"unknown protocol {name!r}; known: {', '.join(INCEPTION_PROTOCOLS)}")
    return INCEPTION_PROTOCOLS[name]
