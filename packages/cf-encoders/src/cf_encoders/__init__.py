"""Every modality into x_0 and back: variational encoders, contrastive losses, language models, codecs.

Names used in every project are here. Single towers, codecs and language models have doors of their own:
`cf_encoders.towers`, `cf_encoders.codecs`, `cf_encoders.language_models`, `cf_encoders.captions`.
"""

from cf_encoders.captions.autoencoder import CaptionAutoencoder
from cf_encoders.captions.feature_decoder import FeatureDecoder
from cf_encoders.codec import ImageCodec, PixelCodec, PosteriorCodec
from cf_encoders.codecs.by_name import image_codec
from cf_encoders.codecs.options import CodecOptions
from cf_encoders.codecs.patch_dct import PatchDCTCodec
from cf_encoders.codecs.taef2 import TAEF2
from cf_encoders.contrastive import LogScale, info_nce, retrieval_accuracy
from cf_encoders.encoder_losses import EncoderLosses, collapse_warning, encoder_losses
from cf_encoders.gaussian import DiagonalGaussian
from cf_encoders.image_ve import ImageVE
from cf_encoders.image_ve_config import ImageVEConfig, image_ve_preset
from cf_encoders.kl_weight import kl_weight, kl_weight_warning
from cf_encoders.language import FrozenLanguageModel, LanguageModel, TextFeatures, VocabLanguageModel
from cf_encoders.language_models.by_name import language_model
from cf_encoders.language_models.cache import CachedLanguageModel
from cf_encoders.language_models.minilm import MiniLM
from cf_encoders.presets import text_ve_preset
from cf_encoders.pretrained import from_pretrained, save_pretrained
from cf_encoders.public_weights import load_public_text_ve, save_public_text_ve, split_public
from cf_encoders.reconstruction import reconstruction_l1, reconstruction_mse, token_cosine, token_mse
from cf_encoders.sigmoid_loss import ScaleAndBias, sigmoid_loss
from cf_encoders.text_ve import TextVE
from cf_encoders.text_ve_config import TextVEConfig
from cf_encoders.tokenizer import Tokenizer, Vocabulary
from cf_encoders.towers.by_name import image_tower
from cf_encoders.towers.convolutional import ImageTower, ImageTowerConfig
from cf_encoders.towers.text import TextTower, TextTowerConfig

__all__ = [
    "TAEF2",
    "CachedLanguageModel",
    "CaptionAutoencoder",
    "CodecOptions",
    "DiagonalGaussian",
    "EncoderLosses",
    "FeatureDecoder",
    "FrozenLanguageModel",
    "ImageCodec",
    "ImageTower",
    "ImageTowerConfig",
    "ImageVE",
    "ImageVEConfig",
    "LanguageModel",
    "LogScale",
    "MiniLM",
    "PatchDCTCodec",
    "PixelCodec",
    "PosteriorCodec",
    "ScaleAndBias",
    "TextFeatures",
    "TextTower",
    "TextTowerConfig",
    "TextVE",
    "TextVEConfig",
    "Tokenizer",
    "VocabLanguageModel",
    "Vocabulary",
    "collapse_warning",
    "encoder_losses",
    "from_pretrained",
    "image_codec",
    "image_tower",
    "image_ve_preset",
    "info_nce",
    "kl_weight",
    "kl_weight_warning",
    "language_model",
    "load_public_text_ve",
    "reconstruction_l1",
    "reconstruction_mse",
    "retrieval_accuracy",
    "save_pretrained",
    "save_public_text_ve",
    "sigmoid_loss",
    "split_public",
    "text_ve_preset",
    "token_cosine",
    "token_mse",
]
