"""The shape and size of a text variational encoder, as data."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cf_encoders.configs import config_from_dict, require_positive, require_shape
from cf_encoders.gaussian import LOGVAR_RANGE

KINDS = ("compact", "paper", "released")
VARIATIONS = ("learned", "none", "noise")  # CrossFlow table 3a: variational encoder, encoder, encoder + noise


@dataclass(frozen=True)
class TextVEConfig:
    """Shape and size of a TextVE. Fields marked with kinds are read by these only.

    variation: `learned` sigma; `none`, x_0 = mean; `noise`, one sigma for all, 1.0 in CrossFlow's table 3a.
    """

    token_width: int  # d of the language model: 768 CLIP, 4096 T5-XXL, 384 MiniLM
    max_tokens: int  # the most tokens it reads; `released` always takes exactly so many
    latent: tuple[int, int, int]  # (c, h, w) of z_0
    kind: str = "compact"
    width: int = 192
    heads: int = 4
    depth: int = 2  # self-attention layers over the tokens
    mlp_hidden: int = 384
    dropout: float = 0.0
    conv_depth: int = 0  # compact: gated convolutions over neighbouring tokens, before the attention
    conv_kernel: int = 5  # compact: how many neighbouring tokens each of them sees, odd
    cross_depth: int = 2  # compact: layers in which the queries read the tokens
    patch: int = 8  # compact: a query writes a patch x patch square of the latent
    bottleneck: int = 96  # paper, released: width of a token where all are flattened
    mean_std: float = 0.35  # compact, paper: std of the mean at initialisation
    sigma: float = 0.6  # compact, paper: sigma at initialisation; sigma for ever where variation is `noise`
    variation: str = "learned"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown TextVE kind {self.kind!r}; known: {', '.join(KINDS)}")
        if self.variation not in VARIATIONS:
            raise ValueError(f"unknown variation {self.variation!r}; known: {', '.join(VARIATIONS)}")
        require_positive(
            self, "token_width", "max_tokens", "width", "heads", "depth", "mlp_hidden", "cross_depth", "patch"
        )
        require_positive(self, "bottleneck", "conv_kernel")
        require_shape(self, "latent")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        if self.conv_depth < 0 or self.conv_kernel % 2 == 0:
            raise ValueError(
                f"conv_depth must be 0 or more and conv_kernel odd, got {self.conv_depth} and {self.conv_kernel}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if self.sigma <= 0 or self.mean_std <= 0:
            raise ValueError(f"sigma and mean_std must be > 0, got {self.sigma} and {self.mean_std}")
        _, h, w = self.latent
        if self.kind == "compact" and (h % self.patch or w % self.patch):
            raise ValueError(f"patch {self.patch} must divide the latent's height {h} and width {w}")

    @property
    def fixed_logvar(self) -> float | None:
        """log sigma^2 where nothing learns it; the lowest there is where there is no variation."""
        known = {"learned": None, "none": LOGVAR_RANGE[0], "noise": 2 * math.log(self.sigma)}
        return known[self.variation]

    @property
    def moments(self) -> int:
        """What the body predicts: mean and logvar, 2, or the mean only, 1."""
        return 2 if self.fixed_logvar is None else 1

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TextVEConfig":
        """The inverse of `to_dict`; an unknown key is a ValueError that lists the known ones."""
        return config_from_dict(cls, values)
