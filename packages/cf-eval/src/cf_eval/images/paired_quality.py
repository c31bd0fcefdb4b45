"""PSNR and SSIM of a stream of pictures beside their targets: super-resolution, reconstruction."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from cf_eval.distributed import Group, all_ranks
from cf_eval.images.feature_set import Id
from cf_eval.images.psnr import decibels, luma, squared_error
from cf_eval.images.read import VALUE_RANGES, require_range
from cf_eval.images.ssim import SSIM_VARIANTS, ssim
from cf_eval.result import Result


@dataclass(frozen=True)
class Pair:
    """What one picture adds: its mean squared error over the squared data range, and its SSIM."""

    mse: float
    ssim: float


# which planes are compared
PLANES = ("rgb", "y")


class PairedQuality:
    """PSNR and SSIM, mean over pictures, by named variants.

    ssim_variant: "wang" (Gaussian 11 x 11, inside the picture), "uniform7" (skimage's default) or "torchmetrics"
    (Gaussian, borders mirrored). planes: "rgb", or "y", the BT.601 luma of 255 levels. crop: border pixels left out
    (super-resolution by s often leaves s out). Pictures that equal their target have infinite PSNR: they are left
    out of its mean and counted. "psnr_of_mean" is of the mean squared error of all pictures (torchmetrics').
    """

    def __init__(self, ssim_variant: str = "wang", planes: str = "rgb", crop: int = 0) -> None:
        if ssim_variant not in SSIM_VARIANTS:
            raise ValueError(f"unknown SSIM variant {ssim_variant!r}; known: {', '.join(SSIM_VARIANTS)}")
        if planes not in PLANES:
            raise ValueError(f"unknown planes {planes!r}; known: {', '.join(PLANES)}")
        if crop < 0:
            raise ValueError(f"crop must not be negative, got {crop}")
        self.ssim_variant, self.planes, self.crop = ssim_variant, planes, crop
        self.pairs: dict[Id, Pair] = {}
        self._unnamed: list[Pair] = []
        self.dropped = 0

    def add_batch(
        self,
        generated: Shaped[Tensor, "b 3 h w"],
        target: Shaped[Tensor, "n 3 i j"],
        value_range: str = "uint8",
        ids: Sequence[Id] | None = None,
    ) -> list[Pair]:
        """Add pictures and targets, both in one value range ("uint8", "0..1", "-1..1"); nothing is rounded.

        Returns what each adds, in order. Pictures whose id was there before count once.
        """
        if generated.shape != target.shape:
            raise ValueError(
                f"generated images are {tuple(generated.shape)}, targets {tuple(target.shape)}; resize one"
            )
        if ids is not None and len(ids) != len(generated):
            raise ValueError(f"{len(ids)} ids for {len(generated)} images; give one for one")
        if len(generated) and (ids is None) == bool(self.pairs) and (self.pairs or self._unnamed):
            raise ValueError("some pictures have ids and some have none; give ids always or never")
        x, y = (self._planes(_unit(images, value_range)) for images in (generated, target))
        data_range = 255.0 if self.planes == "y" else 1.0
        errors = squared_error(x, y) / data_range**2
        likeness = ssim(x, y, data_range, self.ssim_variant) if len(x) else errors
        found = [Pair(*both) for both in zip(errors.tolist(), likeness.tolist(), strict=True)]
        self._keep(found, ids)
        return found

    def _planes(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c i j"]:
        if 2 * self.crop >= min(x.shape[2:]):
            raise ValueError(f"a crop of {self.crop} leaves nothing of {x.shape[2]} x {x.shape[3]} images")
        inner = x[:, :, self.crop : x.shape[2] - self.crop, self.crop : x.shape[3] - self.crop]
        return luma(inner) if self.planes == "y" else inner

    def _keep(self, found: Sequence[Pair], ids: Sequence[Id] | None) -> None:
        if ids is None:
            self._unnamed.extend(found)
            return
        for name, pair in zip(ids, found, strict=True):
            self.dropped += name in self.pairs
            self.pairs.setdefault(name, pair)

    def merge(self, other: "PairedQuality") -> None:
        """Take in what another rank or shard has seen, measured the same way."""
        if other.protocol != self.protocol:
            raise ValueError(f"cannot merge {other.protocol!r} into {self.protocol!r}")
        if (self.pairs and other._unnamed) or (self._unnamed and other.pairs):
            raise ValueError("some pictures have ids and some have none; give ids always or never")
        self._unnamed.extend(other._unnamed)
        self._keep(list(other.pairs.values()), list(other.pairs))
        self.dropped += other.dropped

    def gathered(self, group: Group | None = None) -> "PairedQuality":
        """A new metric that has seen what all ranks of the group have, the same on each. All ranks must call it."""
        whole = copy.copy(self)
        whole.pairs, whole._unnamed, whole.dropped = {}, [], 0
        for part in all_ranks(self, group):
            whole.merge(part)
        return whole

    @property
    def protocol(self) -> str:
        """Everything that moves the numbers."""
        planes = {"rgb": "RGB", "y": "luma BT.601 16..235 of 255 levels"}[self.planes]
        return f"{planes}, crop {self.crop}, SSIM {self.ssim_variant}, PSNR mean over pictures that differ"

    def compute(self) -> Result:
        """Sums are exact (math.fsum), so neither order nor ranks move a digit. Raises ValueError for no pictures,
        and where all equal their targets: no finite PSNR says that.
        """
        pairs = [*self.pairs.values(), *self._unnamed]
        if not pairs:
            raise ValueError("no pictures were added; PSNR and SSIM need at least 1")
        errors = [pair.mse for pair in pairs if pair.mse > 0]
        if not errors:
            raise ValueError(f"all {len(pairs)} images equal their targets: PSNR is infinite and SSIM is 1")
        levels = decibels(torch.tensor(errors, dtype=torch.float64), 1.0).tolist()
        overall = torch.tensor(math.fsum(errors) / len(pairs), dtype=torch.float64)
        return Result(
            metric="psnr_ssim",
            values={
                "psnr": math.fsum(levels) / len(levels),
                "psnr_of_mean": float(decibels(overall, 1.0)),
                "ssim": math.fsum(pair.ssim for pair in pairs) / len(pairs),
            },
            protocol=self.protocol,
            count=len(pairs),
            details={"identical": len(pairs) - len(errors), "duplicates_dropped": self.dropped},
        )


def _unit(images: Tensor, value_range: str) -> Float[Tensor, "b c h w"]:
    """To 0..1 in float64. Raises ValueError where the numbers are not in the range."""
    if value_range not in VALUE_RANGES:
        raise ValueError(f"unknown value_range {value_range!r}; known: {', '.join(VALUE_RANGES)}")
    if value_range == "uint8" and images.dtype == torch.uint8:
        return images.double() / 255
    low, high = require_range(images, value_range)
    return (images.double() - low) / (high - low)
