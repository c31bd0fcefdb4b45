"""What L_Enc holds x_0 against: pictures, latents or token features -> a target of z_0's size."""

from cf_encoders.towers.by_name import IMAGE_TOWERS, image_tower
from cf_encoders.towers.clip_images import ClipImages
from cf_encoders.towers.convolutional import ImageTower, ImageTowerConfig
from cf_encoders.towers.frozen import FrozenTower
from cf_encoders.towers.image_target import ImageTarget
from cf_encoders.towers.open_clip_images import OpenClipImages
from cf_encoders.towers.released import ReleasedTower, ReleasedTowerConfig
from cf_encoders.towers.text import TextTower, TextTowerConfig
from cf_encoders.towers.vit import ViTTower, ViTTowerConfig

__all__ = [
    "IMAGE_TOWERS",
    "ClipImages",
    "FrozenTower",
    "ImageTarget",
    "ImageTower",
    "ImageTowerConfig",
    "OpenClipImages",
    "ReleasedTower",
    "ReleasedTowerConfig",
    "TextTower",
    "TextTowerConfig",
    "ViTTower",
    "ViTTowerConfig",
    "image_tower",
]
