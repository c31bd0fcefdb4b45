"""The published sizes as rows, and the ladder between them (DiMR; counts measured on the public code)."""

from cf_transformer.config import DiMRConfig, StageConfig


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


# fmt: off
PRESETS = {
    #                     d_model  n_blocks  n_heads  patches    n_convnext
    "dimr-70m":      rung(    512,       19,       8, (2, 1),             9),
    "dimr-155m":     rung(    640,       27,      10, (2, 1),            13),
    "dimr-305m":     rung(    768,       37,      12, (2, 1),            19),
    "dimr-505m":     rung(    896,       45,      14, (2, 1),            23),
    "dimr-951m":     rung(   1024,       65,      16, (2, 1),            33),  # the paper's 0.95B
    "dimr-951m-512": rung(   1024,       65,      16, (4, 2, 1),         33),  # the same at 512 px, 985M
    "dimr-389m-512": rung(    960,       29,      16, (4, 2, 1),         15),  # the public training demo
}
# fmt: on


def preset(name: str) -> DiMRConfig:
    """The config of a named size; `dataclasses.replace` changes a field. Unknown names list the known."""
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]
