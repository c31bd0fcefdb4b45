"""Every modality into x_0 and back: variational encoders, contrastive losses, language models, codecs."""

from cf_encoders.codec import ImageCodec, PixelCodec
from cf_encoders.codecs.by_name import image_codec
from cf_encoders.codecs.patch_dct import PatchDCTCodec
from cf_encoders.codecs.taef2 import TAEF2
from cf_encoders.contrastive import LogScale, info_nce, retrieval_accuracy
from cf_encoders.gaussian import DiagonalGaussian
from cf_encoders.language import LanguageModel, TextFeatures, VocabLanguageModel
from cf_encoders.language_models.by_name import language_model
from cf_encoders.language_models.cache import CachedLanguageModel
from cf_encoders.language_models.minilm import MiniLM
from cf_encoders.presets import text_ve_preset
from cf_encoders.text_ve import TextVE
from cf_encoders.text_ve_config import TextVEConfig
from cf_encoders.tokenizer import Vocabulary
from cf_encoders.towers.convolutional import ImageTower, ImageTowerConfig

__all__ = [
    "TAEF2",
    "CachedLanguageModel",
    "DiagonalGaussian",
    "ImageCodec",
    "ImageTower",
    "ImageTowerConfig",
    "LanguageModel",
    "LogScale",
    "MiniLM",
    "PatchDCTCodec",
    "PixelCodec",
    "TextFeatures",
    "TextVE",
    "TextVEConfig",
    "VocabLanguageModel",
    "Vocabulary",
    "image_codec",
    "info_nce",
    "language_model",
    "retrieval_accuracy",
    "text_ve_preset",
]
