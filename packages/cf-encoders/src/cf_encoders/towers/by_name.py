"""Image towers by name, for configs and command lines."""

from collections.abc import Callable
from pathlib import Path

from cf_encoders.towers.clip_images import ClipImages
from cf_encoders.towers.convolutional import ImageTower, ImageTowerConfig
from cf_encoders.towers.frozen import FrozenTower
from cf_encoders.towers.image_target import ImageTarget
from cf_encoders.towers.open_clip_images import OpenClipImages
from cf_encoders.towers.released import ReleasedTower, ReleasedTowerConfig
from cf_encoders.towers.vit import ViTTower, ViTTowerConfig

Shape = tuple[int, int, int]

TRAINED: dict[str, Callable[[Shape, Shape], ImageTarget]] = {
    "conv": lambda image, latent: ImageTower(ImageTowerConfig(image, latent)),
    "vit": lambda image, latent: ViTTower(ViTTowerConfig(image, latent)),
    "released": lambda image, latent: ReleasedTower(ReleasedTowerConfig(latent)),
}
FROZEN = {"clip": ClipImages, "open-clip": OpenClipImages}
IMAGE_TOWERS = (*TRAINED, *FROZEN)


def image_tower(name: str, image: Shape, latent: Shape, path: Path | str | None = None) -> ImageTarget:
    """`conv`, `vit`, `released`: fresh and trained whole. `clip`, `open-clip`: frozen under a fresh head.

    image  (c, h, w) of what it sees, an image in [-1, 1] or a latent; `released` and the frozen take images of any
           size and resize them themselves.
    path   of a frozen model: a folder, or its name on the hub (`owner/name` for clip, `hf-hub:owner/name` for
           open-clip).

    ValueError lists the names.
    """
    if name in TRAINED:
        if path is not None:
            raise ValueError(f"{name} is drawn afresh and takes no path, got {path}; load weights into it")
        return TRAINED[name](image, latent)
    if name not in FROZEN:
        raise ValueError(f"unknown image tower {name!r}; known: {', '.join(IMAGE_TOWERS)}")
    if path is None:
        raise ValueError(f"{name} needs the path of a pretrained model")
    return FrozenTower(FROZEN[name](path), latent)
