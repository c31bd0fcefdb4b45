"""Maps from pictures to features: each says what it is, what it does to a picture first, and whose weights it has."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from cf_eval.images.efficientnet_lite0 import EFFICIENTNET_LITE0_FILE, load_efficientnet_lite0
from cf_eval.images.feature_set import Id, require_finite
from cf_eval.images.inception_net import INCEPTION_FILE, for_inference, load_inception
from cf_eval.images.protocols import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Preparation,
    bytes_of,
    inception_protocol,
)
from cf_eval.images.read import Images, image_batches, listed
from cf_eval.images.weights import WeightFile, state_sha256


@runtime_checkable
class Features(Protocol):
    """What the metrics ask of a feature map; anything with these three and a call will do.

    name: network, place in it, resize and scaling, for the reader of a result. weights: hashes by name. rounding:
    how floating-point pictures become bytes ("round" or "truncate").
    """

    @property
    def name(self) -> str: ...
    @property
    def weights(self) -> Mapping[str, str]: ...
    @property
    def rounding(self) -> str: ...
    def __call__(self, images: UInt8[Tensor, "b 3 h w"]) -> Tensor: ...


@dataclass(frozen=True)
class NetworkFeatures:
    """A network behind a preparation. Called with uint8 (b, 3, h, w) it gives (b, d)."""

    network_name: str
    network: Callable[[Tensor], Tensor]
    preparation: Preparation
    protocol: str = ""  # the preparation's name, where it has one
    weights: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"

    @property
    def name(self) -> str:
        protocol = f"protocol {self.protocol}: " if self.protocol else ""
        return f"{self.network_name}; {protocol}{self.preparation}"

    @property
    def rounding(self) -> str:
        return self.preparation.rounding

    @torch.no_grad()
    def __call__(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """In float32, on the CPU."""
        # channels last is what convolutions run fastest in, and costs others nothing
        x = self.preparation(images.to(self.device)).contiguous(memory_format=torch.channels_last)
        return self.network(x).float().cpu()

    def compiled(self) -> "NetworkFeatures":
        """The same features through torch.compile: slow for the first batch of each size, faster afterwards."""
        return replace(self, network=torch.compile(self.network))


def features_of(
    images: Images,
    features: Features,
    value_range: str = "uint8",
    batch_size: int = 32,
    ids: Sequence[Id] | None = None,
) -> Float[Tensor, "n d"]:
    """Features of pictures in any form (see `image_batches`), in order; (0, 0) of none.

    Raises ValueError before any work where there are more or fewer ids than pictures.
    """
    images = listed(images)
    if ids is not None and len(ids) != len(images):
        raise ValueError(f"{len(ids)} ids for {len(images)} images; give one for one")
    rows: list[Tensor] = []
    seen = 0
    for batch in image_batches(images, value_range, features.rounding, batch_size):
        rows.append(require_finite(features(batch), seen))
        seen += len(batch)
    return torch.cat(rows) if rows else torch.zeros(0, 0)


def inception_features(
    path: str | Path,
    protocol: str,
    tap: str = "2048",
    device: str = "cpu",
    expected: WeightFile = INCEPTION_FILE,
) -> NetworkFeatures:
    """What FID, KID and the Inception Score are made of.

    path: pt_inception-2015-12-05-6726825d.pth. protocol: "pytorch-fid", "torch-fidelity", "clean" or
    "torchmetrics", whose resize and scaling are done. tap: "2048" for FID and KID, "logits_unbiased" for the score.
    """
    preparation = inception_protocol(protocol)
    network, sha256 = load_inception(path, tap, expected)
    return NetworkFeatures(
        network_name=f"FID Inception 2015-12-05, {tap}",
        network=for_inference(network).to(device),
        preparation=preparation,
        protocol=protocol,
        weights={"inception_sha256": sha256},
        device=device,
    )


def efficientnet_lite0_features(
    path: str | Path, device: str = "cpu", expected: WeightFile = EFFICIENTNET_LITE0_FILE
) -> NetworkFeatures:
    """1280 pooled features of an ImageNet network of 19 MB: for development, where FID's 95 MB are too many."""
    network, sha256 = load_efficientnet_lite0(path, expected)
    return NetworkFeatures(
        network_name="EfficientNet-Lite0 pooled 1280",
        network=network.to(device).to(memory_format=torch.channels_last),
        preparation=Preparation("pil-bicubic", 224, bytes_of(*IMAGENET_MEAN), bytes_of(*IMAGENET_STD)),
        weights={"efficientnet_lite0_sha256": sha256},
        device=device,
    )


# how CLIP's pictures are resized, by whom: CMMD's code does not antialias
CLIP_RESIZES = {"cmmd": "half-pixel-bicubic", "pil": "pil-bicubic-bytes"}


def clip_features(folder: str | Path, resize: str = "cmmd", device: str = "cpu") -> NetworkFeatures:
    """Image embeddings of a CLIP that transformers saved in a local folder, squeezed to the model's square.

    resize: "cmmd" (bicubic of floats without antialias; with ViT-L/14@336 the features of CMMD) or "pil".
    """
    preparation = _clip_preparation(resize)
    try:
        from transformers import CLIPVisionModelWithProjection
    except ImportError as error:
        raise ImportError('CLIP features need transformers: pip install "cf-eval[clip]"') from error
    model = CLIPVisionModelWithProjection.from_pretrained(_local(folder), local_files_only=True)
    size = model.config.image_size
    return NetworkFeatures(
        network_name=f"CLIP (transformers), patch {model.config.patch_size}, image embeddings",
        network=_Field(model, "image_embeds").eval().to(device),
        preparation=replace(preparation, size=size),
        protocol=resize,
        weights={"clip_sha256": state_sha256(model.state_dict())},
        device=device,
    )


def open_clip_features(
    architecture: str, path: str | Path, resize: str = "cmmd", device: str = "cpu"
) -> NetworkFeatures:
    """Image embeddings of an open_clip model ("ViT-L-14-336") with the weights of a local file."""
    preparation = _clip_preparation(resize)
    try:
        import open_clip
    except ImportError as error:
        raise ImportError('open_clip features need it: pip install "cf-eval[open-clip]"') from error
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is no file; give the path of the weights of {architecture}")
    if architecture not in open_clip.list_models():
        raise ValueError(f"unknown architecture {architecture!r}; open_clip.list_models() lists them")
    model: Any = open_clip.create_model(architecture, pretrained=str(path), device=device).eval()
    size = model.visual.image_size
    return NetworkFeatures(
        network_name=f"CLIP {architecture} (open_clip), image embeddings",
        network=model.encode_image,
        preparation=replace(preparation, size=size if isinstance(size, int) else size[0]),
        protocol=resize,
        weights={"clip_sha256": state_sha256(model.state_dict())},
        device=device,
    )


def dinov2_features(folder: str | Path, device: str = "cpu") -> NetworkFeatures:
    """The class token of a DINOv2 that transformers saved in a local folder: FD-DINOv2 (Stein et al. 2023).

    Their pictures are resized by Pillow, bicubic, to 224 x 224, with the mean and deviation of ImageNet.
    """
    try:
        from transformers import Dinov2Model
    except ImportError as error:
        raise ImportError('DINOv2 features need transformers: pip install "cf-eval[clip]"') from error
    model = Dinov2Model.from_pretrained(_local(folder), local_files_only=True)
    return NetworkFeatures(
        network_name=f"DINOv2 (transformers), {model.config.num_hidden_layers} layers, class token",
        network=_Field(model, "pooler_output").eval().to(device),
        preparation=Preparation("pil-bicubic-bytes", 224, bytes_of(*IMAGENET_MEAN), bytes_of(*IMAGENET_STD)),
        protocol="dgm-eval",
        weights={"dinov2_sha256": state_sha256(model.state_dict())},
        device=device,
    )


def _clip_preparation(resize: str) -> Preparation:
    if resize not in CLIP_RESIZES:
        raise ValueError(f"unknown resize {resize!r}; known: {', '.join(CLIP_RESIZES)}")
    return Preparation(CLIP_RESIZES[resize], 224, bytes_of(*CLIP_MEAN), bytes_of(*CLIP_STD))


def _local(folder: str | Path) -> str:
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder} is no folder; give one that save_pretrained wrote")
    return str(folder)


class _Field(nn.Module):
    """A model of transformers, and which of its outputs is wanted."""

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        return getattr(self.model(x), self.name)
