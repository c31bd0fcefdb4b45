"""Every modality into x_0 and back: variational encoders, contrastive losses, language models, image codecs."""

from cf_encoders.codec import ImageCodec, PixelCodec
from cf_encoders.contrastive import LogScale, info_nce, retrieval_accuracy
from cf_encoders.gaussian import DiagonalGaussian
from cf_encoders.image_tower import ImageTower, ImageTowerConfig
from cf_encoders.presets import text_ve_preset
from cf_encoders.text_ve import TextVE, TextVEConfig
from cf_encoders.tokenizer import Vocabulary

__all__ = [
    "DiagonalGaussian",
    "ImageCodec",
    "ImageTower",
    "ImageTowerConfig",
    "LogScale",
    "PixelCodec",
    "TextVE",
    "TextVEConfig",
    "Vocabulary",
    "info_nce",
    "retrieval_accuracy",
    "text_ve_preset",
]
