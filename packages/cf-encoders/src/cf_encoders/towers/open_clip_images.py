"""The image encoder of any open_clip model, SigLIP's among them, with its preprocessing."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from cf_encoders.language_models.open_clip_text import load, model_name
from cf_encoders.located import needs
from cf_encoders.towers.frozen import FrozenImages
from cf_encoders.towers.preprocess import Preprocess


class OpenClipImages(FrozenImages):
    """Images in [-1, 1] -> open_clip's image features: (b, 768) for ViT-L-14, (b, 1024) for ViT-L-16-SigLIP-256.

    model  an architecture of open_clip with `checkpoint`, its local weight file; or `hf-hub:owner/name`; or a local
           folder with open_clip_config.json, alone. OpenAI's weights want an architecture with -quickgelu.

    Errors: FileNotFoundError, ValueError for weights of another architecture, ImportError with the install command.
    """

    def __init__(
        self,
        model: Path | str,
        checkpoint: Path | str | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        open_clip = needs("open_clip", "open-clip")
        name = model_name(open_clip, model, checkpoint)
        # in float32 first: open_clip's own 16 bits keep some layers wider, and its text half is let go here
        network = load(open_clip, name, checkpoint, torch.float32).visual
        super().__init__(network.to(dtype), Preprocess.from_open_clip(network.preprocess_cfg), device)

    def embed(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        return self.network(pixels)
