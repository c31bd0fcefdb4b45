"""What `training.py` trains: models, image towers, batches in memory."""

from dataclasses import dataclass, replace

import torch
from cf_apps.engine.config import FitConfig
from cf_apps.t2i.config import LossConfig, T2IConfig
from cf_apps.t2i.presets import t2i_preset
from cf_apps.t2i.task import T2IBatch
from cf_encoders import TextFeatures, TextVEConfig, text_ve_preset
from cf_encoders.towers import ReleasedTowerConfig
from encoders import COCO_LENGTHS, SHORTEST

SEED = 1
# the public code's recipe; ours clips besides
FIT = FitConfig(steps=10_000, lr=1e-5, ema_ramp=1.0)
LOSS = LossConfig(kl_weight=1e-2, kl_form="released", times="logit_normal")


@dataclass(frozen=True)
class Size:
    """A model, its image tower, and how many samples a step has."""

    config: T2IConfig
    tower: ReleasedTowerConfig
    b: int

    @property
    def fit(self) -> FitConfig:
        return replace(FIT, batch_size=self.b)


def tiny(b: int = 32) -> Size:
    """The backbone of preset `tiny`; text encoder and image tower of the public kind, about as small."""
    config = t2i_preset("tiny").model
    latent = config.latent
    text_ve = TextVEConfig(
        128, 40, latent, kind="released", width=128, heads=4, depth=2, bottleneck=16, dropout=0.1
    )
    tower = ReleasedTowerConfig(latent, side=32, patch=4, width=128, depth=4, heads=4, hidden=512)
    return Size(replace(config, text_ve=text_ve, image_tower=None, loss=LOSS), tower, b)


def dimr_70m(b: int = 2) -> Size:
    """The model of the paper's ablations with the public text encoder in the depth for small rungs; the tower is a
    ViT-S/16, which is to 70M about what a ViT-L/16 is to 951M."""
    config = t2i_preset("ablation-70m").model
    text_ve = text_ve_preset("released-256-clip-2-layers")
    tower = ReleasedTowerConfig(config.latent, width=384, depth=12, heads=6)
    config = replace(config, text_ve=text_ve, image_tower=None, tower_sees="latent", loss=LOSS)
    return Size(config, tower, b)


SIZES = {"tiny": tiny, "dimr-70m": dimr_70m}


def batch_of(size: Size) -> T2IBatch:
    """Random features with the lengths of COCO's captions, random latents and images."""
    generator = torch.Generator().manual_seed(SEED)
    text_ve, b = size.config.text_ve, size.b
    assert text_ve is not None
    lengths = SHORTEST + torch.multinomial(torch.tensor(COCO_LENGTHS).double(), b, True, generator=generator)
    text = TextFeatures(
        torch.randn(b, text_ve.max_tokens, text_ve.token_width, generator=generator),
        torch.arange(text_ve.max_tokens) < lengths[:, None],
    )
    images = torch.rand(b, 3, size.tower.side, size.tower.side, generator=generator) * 2 - 1
    return T2IBatch([""] * b, torch.randn(b, *size.config.latent, generator=generator), images, text)
