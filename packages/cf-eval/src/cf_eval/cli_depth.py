"""`cf-eval depth PREDICTIONS TRUTHS --protocol NAME`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from cf_eval.cli_report import (
    Output,
    Place,
    by_stem,
    one_of,
    require_same_names,
    require_writable,
    tracked,
)
from cf_eval.depth.protocols import PROTOCOLS, depth_protocol
from cf_eval.depth.score import DepthMetrics

SUFFIXES = (".npy", ".png")


@dataclass(frozen=True)
class Depth:
    """Errors of predicted depth maps: npy in metres, or 16-bit PNG with a scale; the same names in both folders."""

    predictions: Annotated[Place, tyro.conf.arg(metavar="PREDICTIONS")]
    """Folder of predicted depth, npy or 16-bit png."""
    truths: Annotated[Place, tyro.conf.arg(metavar="TRUTHS")]
    """Folder of true depth, npy or 16-bit png."""
    protocol: Annotated[str, one_of(tuple(PROTOCOLS))]
    scale: float | None = None
    """Levels of a PNG to a metre: 256 for KITTI, 1000 for NYU. Needed where there are PNGs, never guessed."""
    prediction_scale: float | None = None
    """The same of predicted PNGs, where it is another."""
    masks: Path | None = None
    """Folder of masks (npy or png, not 0 where the truth may be used); DIODE needs one."""
    table: Path | None = None
    """CSV with a line per picture."""
    output: Output = field(default_factory=Output)

    def run(self) -> None:
        self.output.check()
        require_writable(self.table)
        protocol = depth_protocol(self.protocol)
        if protocol.mask == "given" and self.masks is None:
            raise ValueError(f"{self.protocol} takes its masks from the data set; pass --masks FOLDER")
        predictions, truths = by_stem(self.predictions, SUFFIXES), by_stem(self.truths, SUFFIXES)
        require_same_names(predictions, truths, "prediction", "truth")
        masks = None if self.masks is None else by_stem(self.masks, SUFFIXES)
        if masks is not None:
            require_same_names(masks, truths, "mask", "truth")
        of_prediction = self.scale if self.prediction_scale is None else self.prediction_scale
        for files, scale in ((predictions, of_prediction), (truths, self.scale)):
            require_scale(files, scale)
        metric = DepthMetrics(protocol)
        for (name,) in tracked(list(truths), "depth maps"):
            pair = [read_depth(predictions[name], of_prediction)], [read_depth(truths[name], self.scale)]
            metric.add_batch(*pair, None if masks is None else [read_plane(masks[name])], [name])
        if self.table is not None:
            metric.save_table(self.table)
        self.output.show(metric.compute())


def require_scale(files: dict[str, Path], scale: float | None) -> None:
    """Raises ValueError for PNGs without a scale, and for a scale that is none."""
    png = next((path for path in files.values() if path.suffix.lower() == ".png"), None)
    if png is not None and scale is None:
        raise ValueError(
            f"{png} holds levels, not metres; pass --scale: 256 levels a metre for KITTI, 1000 for NYU"
        )
    if scale is not None and not 0 < scale < float("inf"):
        raise ValueError(f"--scale must be positive, got {scale}; KITTI has 256 levels a metre, NYU 1000")


def read_depth(path: Path, scale: float | None) -> np.ndarray:
    """One depth map in metres, (h, w), in float64. Raises ValueError for a file that is none."""
    levels = read_plane(path)
    if path.suffix.lower() == ".npy":
        return levels.astype(np.float64)
    if levels.dtype == np.uint8:
        raise ValueError(f"{path} has 8 bits a pixel; depth needs 16-bit PNG, or npy")
    return levels.astype(np.float64) / (scale or 1.0)


def read_plane(path: Path) -> np.ndarray:
    """The numbers of a file, (h, w); of a PNG as they are stored."""
    values = _from_npy(path) if path.suffix.lower() == ".npy" else _from_png(path)
    if values.ndim == 3 and 1 in values.shape:  # (1, h, w) and (h, w, 1) hold one plane too
        values = values.squeeze(values.shape.index(1))
    if values.ndim != 2 or not (np.issubdtype(values.dtype, np.number) or values.dtype == bool):
        raise ValueError(
            f"{path} holds {values.dtype} of shape {values.shape}; one plane of numbers was expected"
        )
    return values


def _from_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as npy: {error}") from error


def _from_png(path: Path) -> np.ndarray:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('reading PNG needs Pillow: pip install "cf-eval[images]"') from error
    try:
        with Image.open(path) as image:
            return np.array(image)
    except OSError as error:
        raise ValueError(f"{path} cannot be read as a PNG: {error}") from error
