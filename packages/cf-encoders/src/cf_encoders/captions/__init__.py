"""Captions through a latent and back: subwords, decoders, and the autoencoder they form."""

from cf_encoders.captions.accuracy import CaptionAccuracy, caption_accuracy
from cf_encoders.captions.autoencoder import DECODERS, CaptionAutoencoder
from cf_encoders.captions.autoencoder_config import CaptionAutoencoderConfig
from cf_encoders.captions.autoregressive import AutoregressiveDecoder
from cf_encoders.captions.decoder import CaptionDecoder
from cf_encoders.captions.decoder_config import CaptionDecoderConfig
from cf_encoders.captions.feature_decoder import FeatureDecoder, FeatureDecoderConfig
from cf_encoders.captions.subwords import Subwords

__all__ = [
    "DECODERS",
    "AutoregressiveDecoder",
    "CaptionAccuracy",
    "CaptionAutoencoder",
    "CaptionAutoencoderConfig",
    "CaptionDecoder",
    "CaptionDecoderConfig",
    "FeatureDecoder",
    "FeatureDecoderConfig",
    "Subwords",
    "caption_accuracy",
]
