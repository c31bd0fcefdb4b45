"""The two halves of a caption autoencoder and the weights of its losses, as data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cf_encoders.captions.decoder_config import CaptionDecoderConfig
from cf_encoders.configs import config_from_dict
from cf_encoders.text_ve_config import TextVEConfig

DECODER_KINDS = ("parallel", "autoregressive")


@dataclass(frozen=True)
class CaptionAutoencoderConfig:
    """`encoder.max_tokens` counts <bos> and <eos>, `decoder.max_tokens` only <eos>: one less, or fewer."""

    encoder: TextVEConfig
    decoder: CaptionDecoderConfig
    decoder_kind: str = "parallel"
    kl_weight: float = 1e-4  # of the KL summed over the latent, beside the cross-entropy per token
    length_weight: float = 0.1

    def __post_init__(self) -> None:
        if self.decoder_kind not in DECODER_KINDS:
            raise ValueError(f"unknown decoder_kind {self.decoder_kind!r}; known: {', '.join(DECODER_KINDS)}")
        if self.encoder.latent != self.decoder.latent:
            raise ValueError(
                f"the encoder writes a latent {self.encoder.latent}, the decoder reads {self.decoder.latent}"
            )
        if self.decoder.max_tokens > self.encoder.max_tokens - 1:
            raise ValueError(
                f"the decoder writes up to {self.decoder.max_tokens} tokens, the encoder reads "
                f"{self.encoder.max_tokens - 1} besides <bos>; lower decoder.max_tokens"
            )
        if self.kl_weight < 0 or self.length_weight < 0:
            raise ValueError(
                f"weights must be >= 0, got kl_weight {self.kl_weight}, length_weight {self.length_weight}"
            )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CaptionAutoencoderConfig":
        """The inverse of `to_dict`; an unknown key is a ValueError that lists the known ones."""
        halves = {"encoder": TextVEConfig, "decoder": CaptionDecoderConfig}
        built = {name: part.from_dict(values[name]) for name, part in halves.items() if name in values}
        return config_from_dict(cls, {**values, **built})
