"""Text encoders by name: the public code's, the paper's at the same sizes, and small ones for every day.

A name says kind, image size at 8 pixels a latent cell, and the language model's tokens; CLIP's where it says none.
"""

from dataclasses import replace

from cf_encoders.text_ve_config import TextVEConfig


def _released(token_width: int, width: int, side: int, depth: int = 11) -> TextVEConfig:
    return TextVEConfig(
        kind="released",
        token_width=token_width,
        max_tokens=77,
        latent=(4, side, side),
        width=width,
        heads=8,
        depth=depth,
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


PAPER_256 = _paper(768, 768, 32)

TEXT_VES: dict[str, TextVEConfig] = {
    #                                       token_width  width  latent side  depth
    "released-256-clip":          _released(        768,   768,  32),
    "released-256-t5":            _released(       4096,  1024,  32),
    "released-512-clip":          _released(        768,   768,  64),
    "released-512-t5":            _released(       4096,  1024,  64),
    # for the small rungs of the model ladder: 75, 83 and, above, 110 M weights
    "released-256-clip-2-layers": _released(        768,   768,  32,           2),
    "released-256-clip-4-layers": _released(        768,   768,  32,           4),
    "paper-256":                  PAPER_256,
    "paper-256-t5":               _paper(          4096,   768,  32),
    "paper-256-llama":            _paper(          4096,   768,  32),
    "paper-512":                  _paper(           768,   768,  64),
    "paper-512-t5":               _paper(          4096,   768,  64),
    "paper-512-llama":            _paper(          4096,   768,  64),
    # CrossFlow's table 3a beside the variational encoder: x_0 = mean, and x_0 = mean + noise of sigma 1
    "paper-256-encoder":       replace(PAPER_256, variation="none"),
    "paper-256-encoder-noise": replace(PAPER_256, variation="noise", sigma=1.0),
    #                                    latent  patch  width  depth  tokens  token_width
    "compact-256":         _compact((4, 32, 32),     2,   768,     6,     77,  768),
    "compact-256-t5":      _compact((4, 32, 32),     2,   768,     6,     77,  4096),
    "compact-256-llama":   _compact((4, 32, 32),     2,   768,     6,     77,  4096),
    "compact-256-minilm":  _compact((4, 32, 32),     2,   384,     6,     64,  384),
    "compact-512":         _compact((4, 64, 64),     4,   768,     6,     77,  768),
    "compact-512-t5":      _compact((4, 64, 64),     4,   768,     6,     77,  4096),
    "compact-512-llama":   _compact((4, 64, 64),     4,   768,     6,     77,  4096),
    "tiny":                _compact((3, 32, 32),     8,   192,     2,     32,  192),
    "tiny-minilm":         _compact((32, 8, 8),      1,   192,     2,     64,  384),
}  # fmt: skip


def text_ve_preset(name: str) -> TextVEConfig:
    """The config by name; change a field with `dataclasses.replace`. ValueError lists the names."""
    if name not in TEXT_VES:
        raise ValueError(f"unknown text encoder {name!r}; known: {', '.join(TEXT_VES)}")
    return TEXT_VES[name]
