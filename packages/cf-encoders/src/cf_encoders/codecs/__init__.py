"""Image codecs behind the Protocol of `codec.py`, each in a room of its own."""

from cf_encoders.codecs.autoencoder_kl import AutoencoderKLCodec
from cf_encoders.codecs.autoencoder_tiny import AutoencoderTinyCodec
from cf_encoders.codecs.by_name import IMAGE_CODECS, image_codec
from cf_encoders.codecs.options import CodecOptions
from cf_encoders.codecs.patch_dct import PatchDCTCodec
from cf_encoders.codecs.taef2 import TAEF2

__all__ = [
    "IMAGE_CODECS",
    "TAEF2",
    "AutoencoderKLCodec",
    "AutoencoderTinyCodec",
    "CodecOptions",
    "PatchDCTCodec",
    "image_codec",
]
