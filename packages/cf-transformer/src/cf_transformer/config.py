"""What a DiMR is made of: frozen, validated rows that turn into JSON and back."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal, get_args

StageKind = Literal["transformer", "convnext"]
IndicatorKind = Literal["paper", "released"]
Activation = Literal["gelu", "silu"]
AttentionKind = Literal["sdpa", "matmul"]
InitKind = Literal["paper", "scaled"]
QueryKeyKind = Literal["plain", "norm", "norm+rope"]
RecomputeKind = Literal["nothing", "cheap", "blocks"]


@dataclass(frozen=True)
class StageConfig:
    """One resolution of the cascade (DiMR).

    Every stage cuts the same full-resolution `x_t` into `patch` x `patch` cells. `n_blocks` is made odd,
    2 * (n_blocks // 2) + 1: a U-ViT has one middle block and as many blocks before it as after it.
    `n_heads` belongs to transformer stages only; the paper's heads are 64 wide.
    """

    kind: StageKind
    d_model: int
    n_blocks: int
    patch: int
    n_heads: int | None = None

    def __post_init__(self) -> None:
        require_known("stage kind", self.kind, get_args(StageKind))
        for name in ("d_model", "n_blocks", "patch"):
            require_positive(name, getattr(self, name))
        object.__setattr__(self, "n_blocks", 2 * (self.n_blocks // 2) + 1)
        if self.kind == "convnext":
            if self.n_heads is not None:
                raise ValueError(f"a convnext stage has no attention: leave n_heads out (got {self.n_heads})")
        elif self.n_heads is None or self.n_heads < 1 or self.d_model % self.n_heads:
            raise ValueError(
                f"a transformer stage needs n_heads that divides d_model={self.d_model}, got {self.n_heads}; "
                f"the paper takes d_model // 64 = {max(1, self.d_model // 64)}"
            )

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "StageConfig":
        """The inverse of `to_dict`; a key that is not a field is an error that lists the fields."""
        require_fields(cls, values)
        return cls(**values)


@dataclass(frozen=True)
class DiMRConfig:
    """A velocity network for tensors of shape (channels, *size), with stages from low to high resolution.

    indicator    `paper`: two learned d_model-vectors (CrossFlow 4.3); `released`: two learned scalars.
    activation   of the gated MLP. `gelu` (exact, erf) is the paper's; `silu` is cheaper on CPU.
    attention    `sdpa`, or `matmul`: the same in plain products, faster to train in bf16 on CPU.
    mlp_ratio    hidden width of the gated MLP over d_model.
    kernel_size  of the depthwise convolutions in convnext stages; odd.
    init         `paper`: normal(0, 0.02) for every linear layer; `scaled`: the same at 1024 inputs, and as much larger
                 as narrower layers need for the same gain, with positions and indicator of the features' size.
    zero_init_head  start every velocity head at zero (the paper does not).
    query_key    `plain`, the paper's; `norm`: QK-norm; `norm+rope`: QK-norm and axial RoPE in place of the learned
                 positions of transformer stages (DiMR has both, switched off).
    recompute    in the backward pass: `nothing`; `cheap`: all of a block but its products, convolutions and attention;
                 `blocks`: all of it. The same gradients for less memory and more time.
    """

    channels: int
    size: tuple[int, int]
    stages: tuple[StageConfig, ...]
    indicator: IndicatorKind = "paper"
    activation: Activation = "gelu"
    attention: AttentionKind = "sdpa"
    mlp_ratio: float = 2.0
    kernel_size: int = 7
    init: InitKind = "paper"
    zero_init_head: bool = False
    query_key: QueryKeyKind = "plain"
    recompute: RecomputeKind = "nothing"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(self.size))
        object.__setattr__(self, "stages", tuple(self.stages))
        require_known("indicator", self.indicator, get_args(IndicatorKind))
        require_known("activation", self.activation, get_args(Activation))
        require_known("attention", self.attention, get_args(AttentionKind))
        require_known("init", self.init, get_args(InitKind))
        require_known("query_key", self.query_key, get_args(QueryKeyKind))
        require_known("recompute", self.recompute, get_args(RecomputeKind))
        require_positive("channels", self.channels)
        if len(self.size) != 2:
            raise ValueError(f"size must be (height, width), got {self.size}")
        for name, side in zip(("height", "width"), self.size, strict=True):
            require_positive(name, side)
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd to keep the grid, got {self.kernel_size}")
        if not self.stages:
            raise ValueError("stages is empty; a DiMR needs at least one transformer stage")
        if self.stages[0].kind != "transformer":
            raise ValueError(
                "the first stage must be a transformer: the indicator enters as one of its tokens; "
                f"got {self.stages[0].kind!r}"
            )
        for stage in self.stages:
            self._check_stage(stage)
        for low, high in zip(self.stages, self.stages[1:], strict=False):
            if low.patch % high.patch:
                raise ValueError(
                    "stages run from low to high resolution: "
                    f"patch {low.patch} must be a multiple of the next stage's patch {high.patch}"
                )

    def _check_stage(self, stage: StageConfig) -> None:
        if any(side % stage.patch for side in self.size):
            raise ValueError(
                f"size {self.size} is not divisible by patch {stage.patch}; pad it or change the patch"
            )
        if not (stage.d_model * self.mlp_ratio).is_integer() or self.mlp_ratio <= 0:
            raise ValueError(
                f"mlp_ratio * d_model must be a positive whole number, got {self.mlp_ratio} * {stage.d_model}"
            )
        if self.query_key == "norm+rope" and stage.n_heads is not None and stage.d_model // stage.n_heads % 4:
            raise ValueError(
                "axial RoPE turns pairs of channels, half of them by row and half by column: the head width "
                f"d_model / n_heads must be a multiple of 4, got {stage.d_model} / {stage.n_heads}"
            )

    def grid(self, stage: StageConfig) -> tuple[int, int]:
        """(rows, columns) of cells that a stage works on."""
        return self.size[0] // stage.patch, self.size[1] // stage.patch

    def hidden(self, stage: StageConfig) -> int:
        """Width inside a stage's gated MLP."""
        return int(self.mlp_ratio * stage.d_model)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values (lists for tuples), as a checkpoint's config.json holds them."""
        return {
            **asdict(self),
            "size": list(self.size),
            "stages": [stage.to_dict() for stage in self.stages],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DiMRConfig":
        """The inverse of `to_dict`; a key that is not a field is an error that lists the fields."""
        require_fields(cls, values)
        stages = tuple(StageConfig.from_dict(stage) for stage in values["stages"])
        return cls(**{**values, "stages": stages})


def require_known(what: str, value: object, known: tuple[str, ...]) -> None:
    """Raise ValueError listing the known values unless `value` is one."""
    if value not in known:
        raise ValueError(f"unknown {what} {value!r}; known: {', '.join(known)}")


def require_positive(name: str, value: object) -> None:
    """Raise ValueError unless `value` is a whole number of at least 1."""
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")


def require_fields(cls: type, values: Mapping[str, Any]) -> None:
    """Raise ValueError listing the fields of `cls` unless `values` has those it must have and no others."""
    known = [field.name for field in fields(cls)]
    unknown = [key for key in values if key not in known]
    if unknown:
        raise ValueError(
            f"unknown {cls.__name__} key {', '.join(map(repr, unknown))}; known: {', '.join(known)}"
        )
    missing = [f.name for f in fields(cls) if f.default is MISSING and f.name not in values]
    if missing:
        raise ValueError(f"{cls.__name__} lacks {', '.join(map(repr, missing))}")
