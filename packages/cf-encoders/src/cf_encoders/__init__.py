"""Every modality into x_0 and back: variational encoders, contrastive losses, language models, codecs."""

from cf_encoders.choose import image_codec, language_model
from cf_encoders.codec import ImageCodec, PixelCodec
from cf_encoders.contrastive import LogScale, info_nce, retrieval_accuracy
from cf_encoders.feature_cache import CachedLanguageModel
from cf_encoders.gaussian import DiagonalGaussian
from cf_encoders.image_tower import ImageTower, ImageTowerConfig
from cf_encoders.language import LanguageModel, TextFeatures, VocabLanguageModel
from cf_encoders.minilm import MiniLM
from cf_encoders.patch_dct import PatchDCTCodec
from cf_encoders.presets import text_ve_preset
from cf_encoders.taef2 import TAEF2
from cf_encoders.text_ve import TextVE
from cf_encoders.text_ve_config import TextVEConfig
from cf_encoders.tokenizer import Vocabulary

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
