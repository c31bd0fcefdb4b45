"""What a DiT is made of: one frozen, validated row that turns into JSON and back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

from cf_transformer.config import (
    AttentionKind,
    RecomputeKind,
    require_fields,
    require_known,
    require_positive,
)


@dataclass(frozen=True)
class DiTConfig:
    """A velocity network for tensors of shape (channels, *size): one grid of tokens, one width (DiT).

    patch        side of a token's cell; it divides both sides of `size`.
    mlp_ratio    hidden width of the MLP over d_model.
    time_scale   t is multiplied by it before its cosines and sines are taken. 1000 suits them; the public CrossFlow
                 code leaves t in [0, 1], a time_scale of 1.
    attention, recompute  as in DiMRConfig.
    """

    channels: int
    size: tuple[int, int]
    d_model: int
    n_blocks: int
    n_heads: int
    patch: int = 2
    mlp_ratio: float = 4.0
    time_scale: float = 1000.0
    attention: AttentionKind = "sdpa"
    recompute: RecomputeKind = "nothing"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(self.size))
        require_known("attention", self.attention, get_args(AttentionKind))
        require_known("recompute", self.recompute, get_args(RecomputeKind))
        for name in ("channels", "d_model", "n_blocks", "n_heads", "patch"):
            require_positive(name, getattr(self, name))
        if len(self.size) != 2:
            raise ValueError(f"size must be (height, width), got {self.size}")
        for name, side in zip(("height", "width"), self.size, strict=True):
            require_positive(name, side)
            if side % self.patch:
                raise ValueError(
                    f"{name} {side} is not divisible by patch {self.patch}; pad it or change the patch"
                )
        if self.d_model % self.n_heads:
            raise ValueError(
                f"n_heads must divide d_model={self.d_model}, got {self.n_heads}; DiT's heads are 64 wide"
            )
        if self.d_model % 4:
            raise ValueError(
                f"d_model must be a multiple of 4, sine and cosine of x and of y, got {self.d_model}; "
                f"the next is {self.d_model + -self.d_model % 4}"
            )
        if not (self.d_model * self.mlp_ratio).is_integer() or self.mlp_ratio <= 0:
            raise ValueError(
                f"mlp_ratio * d_model must be a positive whole number, got {self.mlp_ratio} * {self.d_model}"
            )
        if self.time_scale <= 0:
            raise ValueError(f"time_scale must be positive, got {self.time_scale}; 1000 suits the embedding")

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of tokens."""
        return self.size[0] // self.patch, self.size[1] // self.patch

    @property
    def hidden(self) -> int:
        """Width inside the MLP."""
        return int(self.mlp_ratio * self.d_model)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values, as a checkpoint's config.json holds them."""
        return {**asdict(self), "size": list(self.size)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DiTConfig":
        """The inverse of `to_dict`; a key that is not a field is an error that lists the fields."""
        require_fields(cls, values)
        return cls(**{**values, "size": tuple(values["size"])})
