"""Networks that judge pictures of prompts, from local files: detectors for GenEval, CLIP for scores and colours.

None of them ships with the package: whoever asks for a score without its weights is told which path to give.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from cf_apps.engine.errors import ConfigError

if TYPE_CHECKING:
    from cf_eval.clip_encoders import ClipEncoder
    from cf_eval.geneval.colours import ColourClassifier
    from cf_eval.geneval.objects import Detector

T = TypeVar("T")


@dataclass(frozen=True)
class JudgePaths:
    """Where the weights are. detector: a file of FastestDet, or a folder of a transformers detector.

    clip: a folder of a transformers CLIP, or a file of open_clip's weights with its architecture by name.
    """

    detector: Path | None = None
    clip: Path | None = None
    architecture: str | None = None


def detector_of(paths: JudgePaths, device: torch.device) -> "Detector":
    """GenEval's eye. Raises ConfigError without weights."""
    from cf_eval import load_fastest_det, transformers_detector

    path = paths.detector
    if path is None:
        raise ConfigError(
            "GenEval needs a detector, which does not ship with crossflow: give --detector PATH, a folder of a "
            "transformers object detector (DETR, YOLOS, RT-DETR ... trained on COCO) or FastestDet's .pth file"
        )
    if path.is_dir():
        return _loaded("--detector", path, lambda: transformers_detector(path, str(device)))
    return _loaded("--detector", path, lambda: load_fastest_det(path))


def clip_of(paths: JudgePaths, device: torch.device) -> "ClipEncoder":
    """The encoder of a CLIP score. Raises ConfigError without weights."""
    from cf_eval import open_clip_encoder, transformers_clip_encoder

    path, architecture = paths.clip, paths.architecture
    if path is None:
        raise ConfigError(
            "the CLIP score needs a CLIP, which does not ship with crossflow: give --clip PATH, a folder that "
            "transformers saved, or a file of open_clip's weights and its --architecture (ViT-B-32-quickgelu)"
        )
    if architecture is not None:
        return _loaded("--clip", path, lambda: open_clip_encoder(architecture, path, str(device)))
    if path.is_file():
        raise ConfigError(
            f"--clip {path} is a file; name its --architecture, or give a folder of transformers"
        )
    return _loaded("--clip", path, lambda: transformers_clip_encoder(path, str(device)))


def colours_of(paths: JudgePaths, device: torch.device) -> "ColourClassifier":
    """What names the colours of found objects: CLIP as in the official GenEval, or without one a palette."""
    from cf_eval import ClipColours, PaletteColours

    return PaletteColours() if paths.clip is None else ClipColours(clip_of(paths, device))


def _loaded(option: str, path: Path, load: Callable[[], T]) -> T:
    try:
        return load()
    except (ValueError, ImportError, OSError, RuntimeError, KeyError) as error:  # each library has its own
        raise ConfigError(f"{option} {path} cannot be used: {error}") from error
