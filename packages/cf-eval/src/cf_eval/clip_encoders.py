"""CLIP models from local files, in float32: pictures and captions to embeddings.

Captions longer than the context are cut so that the end token stays in the last slot: the embedding is read there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cf_eval.images.protocols import CLIP_MEAN, CLIP_STD
from cf_eval.images.resize import pil_bicubic_bytes
from cf_eval.images.weights import state_sha256


@dataclass(frozen=True)
class ClipEncoder:
    """A CLIP behind two functions; `open_clip_encoder` and `transformers_clip_encoder` make one.

    name: for the reader of a result. image_size: the side of the square the picture tower takes. encode_pixels:
    normalised (b, 3, image_size, image_size) to (b, d). encode_texts: strings to (b, d). weights: hashes by name.
    """

    name: str
    image_size: int
    encode_pixels: Callable[[Tensor], Tensor]
    encode_texts: Callable[[Sequence[str]], Tensor]
    weights: Mapping[str, str] = field(default_factory=dict)

    def pictures(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b d"]:
        """Unit embeddings, in float64 on the CPU, of pixels in 0..1; CLIP's mean and deviation are taken off here."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
        with torch.no_grad():
            return _unit(self.encode_pixels((pixels - mean) / std))

    def texts(self, texts: Sequence[str]) -> Float[Tensor, "b d"]:
        """Unit embeddings, in float64 on the CPU."""
        with torch.no_grad():
            return _unit(self.encode_texts(list(texts)))


def _unit(features: Tensor) -> Tensor:
    features = features.detach().cpu().double()
    return features / features.norm(dim=1, keepdim=True)


def open_clip_encoder(architecture: str, path: str | Path, device: str = "cpu") -> ClipEncoder:
    """An open_clip model ("ViT-B-32", "ViT-L-14", with "-quickgelu" for OpenAI's) with the weights of a local file."""
    try:
        import open_clip
    except ImportError as error:
        raise ImportError('open_clip models need it: pip install "cf-eval[open-clip]"') from error
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is no file; give the path of the weights of {architecture}")
    if architecture not in open_clip.list_models():
        raise ValueError(f"unknown architecture {architecture!r}; open_clip.list_models() lists them")
    model: Any = (
        open_clip.create_model(architecture, pretrained=str(path), precision="fp32").eval().to(device)
    )
    tokenizer = open_clip.get_tokenizer(architecture)
    size = model.visual.image_size
    return ClipEncoder(
        name=f"CLIP {architecture} (open_clip)",
        image_size=size if isinstance(size, int) else size[0],
        encode_pixels=lambda pixels: model.encode_image(pixels.to(device)),
        encode_texts=lambda texts: model.encode_text(tokenizer(list(texts)).to(device)),
        weights={"clip_sha256": state_sha256(model.state_dict())},
    )


def transformers_clip_encoder(folder: str | Path, device: str = "cpu") -> ClipEncoder:
    """A CLIP with its tokenizer that transformers saved in a local folder."""
    try:
        from transformers import AutoTokenizer, CLIPModel
    except ImportError as error:
        raise ImportError('CLIP models of transformers need it: pip install "cf-eval[clip]"') from error
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder} is no folder; give one that save_pretrained wrote")
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    model: Any = CLIPModel.from_pretrained(str(folder), local_files_only=True)
    model = model.float().eval().to(device)
    context = model.config.text_config.max_position_embeddings

    def encode_texts(texts: Sequence[str]) -> Tensor:
        tokens = tokenizer(
            list(texts), padding=True, truncation=True, max_length=context, return_tensors="pt"
        )
        return _embedding(model.get_text_features(**tokens.to(device)))

    return ClipEncoder(
        name=f"CLIP patch {model.config.vision_config.patch_size} (transformers)",
        image_size=model.config.vision_config.image_size,
        encode_pixels=lambda pixels: _embedding(model.get_image_features(pixels.to(device))),
        encode_texts=encode_texts,
        weights={"clip_sha256": state_sha256(model.state_dict())},
    )


def _embedding(output: Any) -> Tensor:
    # transformers 5 wraps the embedding, 4 hands it over
    return output if isinstance(output, Tensor) else output.pooler_output


def shorter_side_to(size: int, h: int, w: int) -> tuple[int, int]:
    """The size of an h x w picture whose shorter side became `size`, the longer one rounded down."""
    return (size, size * w // h) if h <= w else (size * h // w, size)


def clip_square(
    pictures: UInt8[Tensor, "b 3 h w"], size: int, to_pixel: Callable[[float], int] = round
) -> Float[Tensor, "b 3 s s"]:
    """CLIP's own preparation, in 0..1: Pillow's bicubic of bytes to the shorter side, then the square in the middle.

    to_pixel: where the square starts when the margins are odd. CLIP and open_clip crop by torchvision, which rounds a
    half to the even number as Python's round does; transformers cuts it off: int.
    """
    h, w = shorter_side_to(size, *pictures.shape[2:])
    resized = pil_bicubic_bytes(pictures.float(), (h, w))
    top, left = to_pixel((h - size) / 2), to_pixel((w - size) / 2)
    return resized[..., top : top + size, left : left + size] / 255
