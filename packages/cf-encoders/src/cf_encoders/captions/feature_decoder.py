"""Latent -> the language model's token features: what the text-reconstruction loss compares (CrossFlow Table 3a, 3b).

What that decoder looks like is not published. Here learned positions read the latent's patches and one another. Table 9
(sec. B.4) measures the same pair of encoder and decoder by the cosine of each token's features with theirs
(`reconstruction.token_cosine`).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cf_encoders.captions.latent_reader import LatentReader, LatentReaderConfig
from cf_encoders.configs import require_positive
from cf_encoders.layers import SelfBlock
from cf_encoders.pretrained import Pretrained


@dataclass(frozen=True, kw_only=True)
class FeatureDecoderConfig(LatentReaderConfig):
    """`max_tokens` and `token_width` are the language model's: 77 and 768 for CLIP."""

    token_width: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "token_width")


class FeatureDecoder(Pretrained, nn.Module, config=FeatureDecoderConfig):
    """latent (b, c, h, w) -> features (b, n, d) of all n = max_tokens tokens.

    It does not know how many of them are real: features of padding mean nothing, and no loss should ask for them.
    """

    def __init__(self, config: FeatureDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.reader = LatentReader(config, SelfBlock)
        self.head = nn.Linear(config.width, config.token_width)

    def forward(self, latent: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        b, config = len(latent), self.config
        blank = latent.new_zeros(b, config.max_tokens, config.width)
        mask = torch.ones(b, config.max_tokens, dtype=torch.bool, device=latent.device)
        return self.head(self.reader(blank, self.reader.patches(latent), mask))
