"""The published sizes as rows, and the ladder between them (DiMR, DiT; counts measured on the public code)."""

from collections.abc import Mapping
from typing import TypeVar

from cf_transformer.config import DiMRConfig, StageConfig
from cf_transformer.cross_attention_dimr import CrossAttentionConfig
from cf_transformer.dit_config import DiTConfig

Config = TypeVar("Config")


def rung(d_model: int, n_blocks: int, n_heads: int, patches: tuple[int, ...], n_convnext: int) -> DiMRConfig:
    """A transformer stage, then convnext stages of half the width each, on 4-channel latents.

    The transformer works on 16 x 16 tokens, so the latent is 16 * patches[0] wide: 32 for 256 px, 64 for 512.
    """
    first, *higher = patches
    convnext = (
        StageConfig("convnext", d_model // 2**i, n_convnext, patch) for i, patch in enumerate(higher, start=1)
    )
    stages = (StageConfig("transformer", d_model, n_blocks, first, n_heads), *convnext)
    return DiMRConfig(channels=4, size=(16 * first, 16 * first), stages=stages)


def baseline(d_model: int, n_blocks: int, n_heads: int, n_convnext: int) -> CrossAttentionConfig:
    """A rung at 256 px that reads CLIP ViT-L/14's tokens; shorter, for its blocks are larger."""
    return CrossAttentionConfig(rung(d_model, n_blocks, n_heads, (2, 1), n_convnext))


def dit(d_model: int, n_blocks: int, n_heads: int, side: int, time_scale: float = 1000.0) -> DiTConfig:
    """A DiT on cells of 2 x 2 in 4-channel latents, `side` wide."""
    return DiTConfig(4, (side, side), d_model, n_blocks, n_heads, time_scale=time_scale)


TINY = DiMRConfig(
    channels=3,
    size=(32, 32),
    stages=(
        StageConfig("transformer", d_model=192, n_blocks=5, patch=4, n_heads=6),
        StageConfig("convnext", d_model=128, n_blocks=3, patch=2),
    ),
    activation="silu",
    attention="matmul",
    kernel_size=5,
    init="scaled",
)
"""For a CPU: 32 x 32 RGB pixels, or latents of that size with `replace(preset("dimr-tiny"), channels=c)`."""

# fmt: off
PRESETS: dict[str, DiMRConfig] = {
    "dimr-tiny":     TINY,
    #                     d_model  n_blocks  n_heads  patches    n_convnext
    "dimr-70m":      rung(    512,       19,       8, (2, 1),             9),
    "dimr-155m":     rung(    640,       27,      10, (2, 1),            13),
    "dimr-305m":     rung(    768,       37,      12, (2, 1),            19),
    "dimr-505m":     rung(    896,       45,      14, (2, 1),            23),
    "dimr-951m":     rung(   1024,       65,      16, (2, 1),            33),  # the paper's 0.95B
    "dimr-70m-512":  rung(    512,       19,       8, (4, 2, 1),          9),  # the same at 512 px: 73M
    "dimr-155m-512": rung(    640,       27,      10, (4, 2, 1),         13),  # 161M
    "dimr-305m-512": rung(    768,       37,      12, (4, 2, 1),         19),  # 317M
    "dimr-505m-512": rung(    896,       45,      14, (4, 2, 1),         23),  # 524M
    "dimr-951m-512": rung(   1024,       65,      16, (4, 2, 1),         33),  # 985M
    "dimr-389m-512": rung(    960,       29,      16, (4, 2, 1),         15),  # the public training demo
    "dimr-xl-2r":    rung(    960,       39,      16, (2, 1),            20),  # DiMR's own, for ImageNet: 504M
    "dimr-g-2r":     rung(   1152,       57,      16, (2, 1),            29),  # 1055M
    "dimr-xl-3r":    rung(    960,       39,      16, (4, 2, 1),         20),  # 524M
}

CROSS_ATTENTION_PRESETS: dict[str, CrossAttentionConfig] = {
    #                                 d_model  n_blocks  n_heads  n_convnext
    "cross-attention-65m":   baseline(    512,       13,       8,          7),
    "cross-attention-159m":  baseline(    640,       21,      10,         11),
    "cross-attention-308m":  baseline(    768,       29,      12,         15),
    "cross-attention-496m":  baseline(    896,       35,      14,         17),
    "cross-attention-932m":  baseline(   1024,       51,      16,         25),
    "cross-attention-1.04b": baseline(   1024,       57,      16,         29),  # the size of the paper's table 1
}

DIT_PRESETS: dict[str, DiTConfig] = {
    #                            d_model  n_blocks  n_heads  side
    "dit-s-2":               dit(    384,       12,       6,   32),
    "dit-b-2":               dit(    768,       12,      12,   32),
    "dit-l-2":               dit(   1024,       24,      16,   32),
    "dit-xl-2":              dit(   1152,       28,      16,   32),
    "dit-h-2":               dit(   1280,       36,      20,   32),
    "dit-h-2-512":           dit(   1280,       36,      20,   64),
    "dit-h-2-512-released":  dit(   1280,       36,      20,   64, time_scale=1.0),  # t as the public code leaves it
}
# fmt: on


def preset(name: str) -> DiMRConfig:
    """The config of a named DiMR; `dataclasses.replace` changes a field. Unknown names list the known."""
    return _named(PRESETS, name)


def cross_attention_preset(name: str) -> CrossAttentionConfig:
    """The config of a named CrossAttentionDiMR. Unknown names list the known."""
    return _named(CROSS_ATTENTION_PRESETS, name)


def dit_preset(name: str) -> DiTConfig:
    """The config of a named DiT. Unknown names list the known."""
    return _named(DIT_PRESETS, name)


def _named(presets: Mapping[str, Config], name: str) -> Config:
    if name not in presets:
        raise ValueError(f"unknown preset {name!r}; known: {', '.join(presets)}")
    return presets[name]
