"""The shape and size of a caption decoder, as data."""

from dataclasses import dataclass

from cf_encoders.captions.latent_reader import LatentReaderConfig
from cf_encoders.configs import require_positive


@dataclass(frozen=True, kw_only=True)
class CaptionDecoderConfig(LatentReaderConfig):
    """Of a CaptionDecoder or an AutoregressiveDecoder. `max_tokens` counts <eos> but not <bos>."""

    vocabulary: int  # v, `len(tokenizer)`
    predict_length: bool = (
        True  # CaptionDecoder only: a head for the length; without it <eos> ends the caption
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "vocabulary")
