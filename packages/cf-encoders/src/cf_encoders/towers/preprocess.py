"""Images in [-1, 1] -> what a pretrained image encoder was trained on, as its own config says it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

RESAMPLE = {2: "bilinear", 3: "bicubic"}  # PIL's numbers, as transformers writes them


@dataclass(frozen=True)
class Preprocess:
    """Resize with antialiasing, cut out the centre, subtract `mean`, divide by `std` (both for images in [0, 1])."""

    resize: int | tuple[int, int]  # the shorter side, keeping the shape; or height and width
    crop: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    # where an odd rest goes: down in transformers, to the even side in open_clip
    middle: Callable[[float], int] = math.floor

    def __post_init__(self) -> None:
        if self.interpolation not in RESAMPLE.values():
            known = ", ".join(sorted(RESAMPLE.values()))
            raise ValueError(f"unknown interpolation {self.interpolation!r}; known: {known}")
        h, w = (self.resize, self.resize) if isinstance(self.resize, int) else self.resize
        if h < self.crop[0] or w < self.crop[1]:
            raise ValueError(f"a crop of {self.crop} does not fit in an image resized to {self.resize}")

    def __call__(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b 3 h w"]:
        if images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                f"expected images (b, 3, H, W) in [-1, 1], got {images.dtype} of {tuple(images.shape)}"
            )
        x = (images.float() + 1) / 2
        size = self.resized(*x.shape[2:])
        if size != tuple(x.shape[2:]):
            x = F.interpolate(x, size, mode=self.interpolation, antialias=True)
            x = x.clamp(0, 1)  # bicubic overshoots at edges; images of bytes cannot
        (h, w), (rows, columns) = self.crop, x.shape[2:]
        top, left = self.middle((rows - h) / 2), self.middle((columns - w) / 2)
        x = x[:, :, top : top + h, left : left + w]
        mean, std = (torch.tensor(each, device=x.device)[:, None, None] for each in (self.mean, self.std))
        return (x - mean) / std

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) before the crop."""
        if not isinstance(self.resize, int):
            return self.resize
        short, long = sorted((height, width))
        long = self.resize * long // short
        return (self.resize, long) if height <= width else (long, self.resize)

    @classmethod
    def from_transformers(cls, config: Mapping[str, Any]) -> "Preprocess":
        """From preprocessor_config.json. ValueError for a step it does otherwise."""
        for step in ("do_resize", "do_rescale", "do_normalize"):
            if not config.get(step, True):
                raise ValueError(f"the model's preprocessing has {step} off, which is not supported here")
        if missing := sorted({"size", "image_mean", "image_std"} - set(config)):
            raise ValueError(f"the model's preprocessing config lacks {', '.join(missing)}")
        size, resample = config["size"], config.get("resample", 3)
        if resample not in RESAMPLE:
            raise ValueError(f"unknown resample {resample}; known: {RESAMPLE}")
        resize = size["shortest_edge"] if isinstance(size, Mapping) and "shortest_edge" in size else size
        cut = config.get("crop_size", size) if config.get("do_center_crop", True) else size
        return cls(
            resize if isinstance(resize, int) else _pair(resize),
            _pair(cut),
            tuple(config["image_mean"]),
            tuple(config["image_std"]),
            RESAMPLE[resample],
        )

    @classmethod
    def from_open_clip(cls, config: Mapping[str, Any]) -> "Preprocess":
        """From a model's preprocess_cfg. ValueError for a resize mode that pads."""
        crop, mode = _pair(config["size"]), config["resize_mode"]
        if mode not in ("shortest", "squash") or (mode == "shortest" and crop[0] != crop[1]):
            raise ValueError(
                f"resize mode {mode!r} to {crop} is not supported; `shortest` (square) and `squash` are"
            )
        resize = crop[0] if mode == "shortest" else crop
        return cls(resize, crop, tuple(config["mean"]), tuple(config["std"]), config["interpolation"], round)


def _pair(size: Any) -> tuple[int, int]:
    """224, (224, 224) or {"height": 224, "width": 224} -> (224, 224)"""
    if isinstance(size, int):
        return size, size
    if isinstance(size, Mapping):
        if not {"height", "width"} <= set(size):
            raise ValueError(f"expected a size with height and width, got {dict(size)}")
        return size["height"], size["width"]
    height, width = size
    return height, width
