"""Score predicted depth maps by a named protocol: picture by picture, streamed, mergeable.

>>> metrics = DepthMetrics("nyu_marigold"); metrics.add_batch(predictions, truths, ids=names); metrics.compute()
"""

import copy
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from cf_eval.depth.crops import KB_HEIGHT, KB_WIDTH, crop_mask, kb_crop, kb_paste
from cf_eval.depth.errors import ERRORS, depth_errors
from cf_eval.depth.protocols import DepthProtocol, depth_protocol
from cf_eval.distributed import Group
from cf_eval.files import replaced
from cf_eval.images.feature_set import Id
from cf_eval.result import Result
from cf_eval.samples import Samples, ids_for, mean

Map = Tensor | np.ndarray

# Marigold clips once more, for data sets whose lower cap is 0
LEAST_DEPTH = 1e-6


@dataclass(frozen=True)
class DepthRow:
    """One picture's line in the table: its nine errors over `pixels` pixels, or None if there was none to score."""

    id: Id | None
    pixels: int
    errors: Mapping[str, float] | None


def score_depth(
    prediction: Map, truth: Map, protocol: DepthProtocol, mask: Map | None = None, id: Id | None = None
) -> DepthRow:
    """Score one depth map, (h, w), in metres (before alignment: in any unit).

    mask: where the truth may be used, besides what the protocol says. For the frames "kb" and "kb_pasted" the
    prediction may have the size of the truth or of the window. Raises ValueError for sizes that do not fit, for a NaN
    or infinity that the protocol refuses, for a protocol that needs a mask when there is none.
    """
    if protocol.mask == "given" and mask is None:
        raise ValueError(f"{_name(id)}: this protocol takes its mask from the data set; pass mask=")
    p, g = _plane(prediction, "prediction", id), _plane(truth, "truth", id)
    given = torch.ones_like(g, dtype=torch.bool) if mask is None else _plane(mask, "mask", id) > 0
    if given.shape != g.shape:
        raise ValueError(f"{_name(id)}: the mask is {tuple(given.shape)}, the truth {tuple(g.shape)}")
    p, g, given = _frame(p, g, given, protocol.frame, id)
    if p.shape != g.shape:
        raise ValueError(
            f"{_name(id)}: the prediction is {tuple(p.shape)}, the truth {tuple(g.shape)}; "
            "resize the prediction to the truth, never the truth"
        )
    scored = _mask(g, given, protocol)
    pixels = int(scored.sum())
    if pixels == 0:
        return DepthRow(id, 0, None)
    try:
        p = protocol.alignment(_finite(p, scored, protocol), g, scored)
        errors = depth_errors(_clip(p, protocol)[scored], g[scored])
    except ValueError as error:
        raise ValueError(f"{_name(id)}: {error}") from error
    return DepthRow(id, pixels, errors)


class DepthMetrics:
    """Mean of the errors over pictures, each counted once however many pixels it has.

    protocol: a name in `PROTOCOLS` or a `DepthProtocol`. Pictures without a pixel to score are skipped and counted, and
    a picture whose id came before is dropped and counted (samplers pad the last batch). State merges across ranks;
    the sums are exact, so neither order nor sharding moves the result.
    """

    def __init__(self, protocol: str | DepthProtocol) -> None:
        self.protocol = depth_protocol(protocol) if isinstance(protocol, str) else protocol
        self.samples: Samples[DepthRow] = Samples()

    @property
    def rows(self) -> list[DepthRow]:
        """The per-picture table, in the order added."""
        return self.samples.rows

    def add_batch(
        self,
        predictions: Map | Sequence[Map],
        truths: Map | Sequence[Map],
        masks: Map | Sequence[Map | None] | None = None,
        ids: Sequence[Id] | None = None,
    ) -> None:
        """Add b depth maps: (b, h, w), or lists of b maps of any sizes."""
        n = len(truths)
        masks = [None] * n if masks is None else masks
        if not len(predictions) == len(masks) == n:
            raise ValueError(
                f"{len(predictions)} predictions, {n} truths, {len(masks)} masks; give one for one"
            )
        for prediction, truth, mask, id in zip(predictions, truths, masks, ids_for(n, ids), strict=True):
            if self.samples.is_new(id):
                self.samples.append(score_depth(prediction, truth, self.protocol, mask, id), id)

    def merge(self, other: "DepthMetrics") -> None:
        """Take in what another rank or shard has seen, by the same protocol."""
        if other.protocol != self.protocol:
            raise ValueError(f"cannot merge depth scores of {other.protocol} into {self.protocol}")
        self.samples.merge(other.samples)

    def gathered(self, group: Group | None = None) -> "DepthMetrics":
        """A new metric that has seen what all ranks of the group have, the same on each. All ranks must call it."""
        whole = copy.copy(self)
        whole.samples = self.samples.gathered(group)
        return whole

    def compute(self) -> Result:
        """The mean of each error. Raises ValueError while no picture had a pixel to score."""
        scored = [row.errors for row in self.rows if row.errors is not None]
        if not scored:
            raise ValueError(
                f"{len(self.rows)} depth maps were added and none had a pixel to score; "
                f"the protocol takes {self.protocol}"
            )
        return Result(
            metric="depth",
            values={name: mean(errors[name] for errors in scored) for name in ERRORS},
            protocol=str(self.protocol),
            count=len(scored),
            details={
                "skipped_empty": len(self.rows) - len(scored),
                "duplicates_dropped": self.samples.dropped,
                "images_in_the_paper": self.protocol.images,
            },
        )

    def save_table(self, path: str | Path) -> None:
        """Write a CSV with a line per picture, in the order added; a skipped one has 0 pixels and empty errors."""
        with replaced(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "pixels", *ERRORS])
            for row in self.rows:
                errors = row.errors or {}
                writer.writerow(
                    ["" if row.id is None else row.id, row.pixels, *(errors.get(name, "") for name in ERRORS)]
                )


def _name(id: Id | None) -> str:
    return "depth map" if id is None else f"depth map {id!r}"


def _plane(values: Map, name: str, id: Id | None) -> Float64[Tensor, "h w"]:
    plane = torch.as_tensor(values).detach().cpu().double()
    if plane.ndim != 2 or plane.numel() == 0:
        raise ValueError(f"{_name(id)}: the {name} must be (h, w), got {tuple(plane.shape)}")
    return plane


def _frame(
    p: Float64[Tensor, "ph pw"],
    g: Float64[Tensor, "h w"],
    given: Bool[Tensor, "h w"],
    frame: str,
    id: Id | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction, truth and mask in the frame that is scored."""
    if frame == "whole":
        return p, g, given
    if p.shape not in (g.shape, (KB_HEIGHT, KB_WIDTH)):
        raise ValueError(
            f"{_name(id)}: the prediction is {tuple(p.shape)}; it must have the size of the truth, {tuple(g.shape)}, "
            f"or of the KITTI benchmark's window, ({KB_HEIGHT}, {KB_WIDTH})"
        )
    if frame == "kb":
        return kb_crop(p), kb_crop(g), kb_crop(given)
    return kb_paste(kb_crop(p), *g.shape), g, given


def _mask(
    g: Float64[Tensor, "h w"], given: Bool[Tensor, "h w"], protocol: DepthProtocol
) -> Bool[Tensor, "h w"]:
    scored = given & crop_mask(protocol.crop, *g.shape)
    if protocol.mask == "given":
        return scored
    return scored & (g > protocol.min_depth) & (g < protocol.max_depth)


def _finite(
    p: Float64[Tensor, "h w"], scored: Bool[Tensor, "h w"], protocol: DepthProtocol
) -> Float64[Tensor, "h w"]:
    if protocol.non_finite == "to_caps":
        return p.nan_to_num(nan=protocol.min_depth, posinf=protocol.max_depth, neginf=protocol.min_depth)
    wrong = (~p.isfinite() & scored).nonzero()
    if len(wrong):
        row, column = wrong[0].tolist()
        raise ValueError(
            f"the prediction is {p[row, column]:g} at row {row}, column {column} of the scored frame"
        )
    # outside the mask nothing is scored, but a shrunk map must not carry a NaN
    return torch.where(p.isfinite(), p, 0)


def _clip(p: Float64[Tensor, "h w"], protocol: DepthProtocol) -> Float64[Tensor, "h w"]:
    return p.clamp(protocol.min_depth, protocol.max_depth).clamp(min=LEAST_DEPTH)
