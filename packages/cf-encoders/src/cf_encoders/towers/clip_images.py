"""CLIP's image encoder (Radford et al. 2021) through transformers, with its preprocessing."""

import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cf_encoders.language_models.model_folder import ModelFolder, local_folder
from cf_encoders.towers.frozen import FrozenImages
from cf_encoders.towers.preprocess import Preprocess

WANTED = "CLIPVisionModelWithProjection"
MODEL_TYPES = ("clip", "clip_vision_model")
PREPROCESSING = ("preprocessor_config.json", "processor_config.json")


class ClipImages(FrozenImages):
    """Images in [-1, 1] -> CLIP's projected image features: (b, 768) for ViT-L/14.

    `path`: a folder or hub id of a whole CLIP or of its image encoder, with its preprocessor_config.json. Errors:
    FileNotFoundError, ValueError for another architecture or missing weights, ImportError with the install command.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        folder = local_folder(path)
        config = _read(folder, ("config.json",))
        if config.get("model_type") not in MODEL_TYPES:
            raise ValueError(f"{folder} holds a model of type {config.get('model_type')!r}, not a {WANTED}")
        preprocess = _read(folder, PREPROCESSING)
        preprocess = Preprocess.from_transformers(preprocess.get("image_processor", preprocess))
        super().__init__(ModelFolder(folder, WANTED, config).network(dtype), preprocess, device)

    def embed(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        return self.network(pixel_values=pixels).image_embeds


def _read(folder: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """The first of these JSON files that is there."""
    for name in names:
        if (folder / name).is_file():
            return json.loads((folder / name).read_text(encoding="utf-8"))
    raise FileNotFoundError(f"no {WANTED} in {folder}: {' or '.join(names)} missing")
