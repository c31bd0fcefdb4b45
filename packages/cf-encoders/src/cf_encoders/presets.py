"""Text encoders by name: the public code's, the paper's at the same sizes, and small ones for every day."""

from cf_encoders.text_ve_config import TextVEConfig


def _released(token_width: int, width: int, side: int) -> TextVEConfig:
    return TextVEConfig(
        kind="released",
        token_width=token_width,
        max_tokens=77,
        latent=(4, side, side),
        width=width,
        heads=8,
        depth=11,
        bottleneck=width // 8,
        dropout=0.1,
    )


def _paper(token_width: int, width: int, side: int) -> TextVEConfig:
    return TextVEConfig(
        kind="paper",
        token_width=token_width,
        max_tokens=77,
        latent=(4, side, side),
        width=width,
        heads=8,
        depth=11,
        mlp_hidden=2 * width,
        bottleneck=96 if side <= 32 else 24,  # keeps the flat layer at 60 M weights
    )


def _compact(
    latent: tuple[int, int, int], patch: int, width: int, depth: int, tokens: int, token_width: int
) -> TextVEConfig:
    return TextVEConfig(
        kind="compact",
        token_width=token_width,
        max_tokens=tokens,
        latent=latent,
        patch=patch,
        width=width,
        heads=width // 48,
        depth=depth,
        cross_depth=depth,
        mlp_hidden=width,
    )


TEXT_VES: dict[str, TextVEConfig] = {
    #                              token_width  width  latent side
    "released-256-clip": _released(        768,   768,  32),
    "released-256-t5":   _released(       4096,  1024,  32),
    "released-512-clip": _released(        768,   768,  64),
    "released-512-t5":   _released(       4096,  1024,  64),
    "paper-256":         _paper(           768,   768,  32),
    "paper-512":         _paper(           768,   768,  64),
    #                                  latent  patch  width  depth  tokens  token_width
    "compact-256":       _compact((4, 32, 32),     2,   768,     6,     77,  768),
    "compact-512":       _compact((4, 64, 64),     4,   768,     6,     77,  768),
    "tiny":              _compact((3, 32, 32),     8,   192,     2,     32,  192),
    "tiny-minilm":       _compact((32, 8, 8),      1,   192,     2,     64,  384),
}  # fmt: skip


def text_ve_preset(name: str) -> TextVEConfig:
    """The config by name; change a field with `dataclasses.replace`. ValueError lists the names."""
    if name not in TEXT_VES:
        raise ValueError(f"unknown text encoder {name!r}; known: {', '.join(TEXT_VES)}")
    return TEXT_VES[name]
