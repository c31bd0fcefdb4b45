"""The text variational encoder: language-model tokens (b, n, d) -> q(z_0 | x) of the image latent's shape.

CrossFlow sec. 4.1 and 4.4.1. Three bodies share one contract and are chosen by `TextVEConfig.kind`:
    compact   learned queries, one per patch of the latent; any tokens, any latent; the default
    paper     stacked transformer layers and one flat linear layer, as the paper says it
    released  the public code's encoder, layer by layer (released_text_ve.py)
"""

import math
from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cf_encoders.gaussian import DiagonalGaussian
from cf_encoders.layers import CrossBlock, NeighbourBlock, SelfBlock, readable, wide_linear
from cf_encoders.numerics import widen
from cf_encoders.pretrained import Pretrained
from cf_encoders.released_text_ve import ReleasedBody
from cf_encoders.text_ve_config import TextVEConfig


class TextVE(Pretrained, nn.Module, config=TextVEConfig):
    """tokens (b, n, d), mask (b, n; True where there is a token) -> DiagonalGaussian over (b, c, h, w).

    The plain encoder (variation `none`) is a Gaussian of sigma 3e-7, which `sample` adds to the mean: float32's own
    rounding. Its KL is constant in sigma; leave it out of the loss, or it is a weight on mean^2 / 2 only.
    """

    def __init__(self, config: TextVEConfig) -> None:
        super().__init__()
        self.config = config
        self.body = BODIES[config.kind](config)

    def forward(self, tokens: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> DiagonalGaussian:
        _check_tokens(tokens, self.config)
        mean, *logvar = widen(self.body(tokens, mask)).unbind(dim=1)
        fixed = self.config.fixed_logvar
        return DiagonalGaussian(mean, logvar[0] if fixed is None else torch.full_like(mean, fixed))


class CompactBody(nn.Module):
    """Self-attention over the tokens, neighbours first if asked; then a learned query per latent patch writes it.

    A padded token changes nothing, whatever is in it; shorter captions may come with fewer tokens. On a CPU the
    work is that of the batch's longest caption.
    """

    def __init__(self, config: TextVEConfig) -> None:
        super().__init__()
        width, (c, h, w) = config.width, config.latent
        size = (width, config.heads, config.mlp_hidden, config.dropout)
        self.latent, self.patch = config.latent, config.patch
        self.embed = TokenEmbedding(config)
        self.neighbours = nn.ModuleList(
            NeighbourBlock(width, config.conv_kernel) for _ in range(config.conv_depth)
        )
        self.self_blocks = nn.ModuleList(SelfBlock(*size) for _ in range(config.depth))
        self.queries = nn.Parameter(0.5 * torch.randn((h // config.patch) * (w // config.patch), width))
        self.cross_blocks = nn.ModuleList(CrossBlock(*size) for _ in range(config.cross_depth))
        self.norm = nn.LayerNorm(width)
        self.mean, self.logvar = gaussian_heads(width, c * config.patch**2, config)

    def forward(
        self, tokens: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b moments c h w"]:
        tokens, mask = without_padding(tokens, mask)
        context = self.embed(tokens)
        for block in (*self.neighbours, *self.self_blocks):
            context = block(context, mask)
        x = self.queries.expand(len(tokens), -1, -1)
        for block in self.cross_blocks:
            x = block(x, context, mask)
        x = self.norm(x)
        return rearrange(
            torch.stack([head(x) for head in (self.mean, self.logvar) if head is not None], dim=1),
            "b moments (h w) (c p q) -> b moments c (h p) (w q)",
            h=self.latent[1] // self.patch,
            p=self.patch,
            q=self.patch,
        )


class PaperBody(nn.Module):
    """Stacked transformer layers over the tokens, then one linear layer over all of them (sec. 4.1).

    Each token is first narrowed to `bottleneck`: 77 x 768 -> 4 x 32 x 32 straight would be 484 M weights.
    Padded tokens enter the flat layer as zeros, so they change nothing, whatever is in them. On a CPU the work is
    that of the batch's longest caption.
    """

    def __init__(self, config: TextVEConfig) -> None:
        super().__init__()
        size = (config.width, config.heads, config.mlp_hidden, config.dropout)
        self.latent = config.latent
        self.embed = TokenEmbedding(config)
        self.blocks = nn.ModuleList(SelfBlock(*size) for _ in range(config.depth))
        self.narrow = nn.Linear(config.width, config.bottleneck)
        self.norm = nn.LayerNorm(config.bottleneck)
        self.mean, self.logvar = gaussian_heads(
            config.max_tokens * config.bottleneck, math.prod(config.latent), config
        )

    def forward(
        self, tokens: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b moments c h w"]:
        tokens, mask = without_padding(tokens, mask)
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, mask)
        x = (self.norm(self.narrow(x)) * mask[..., None]).flatten(1)
        heads = [head for head in (self.mean, self.logvar) if head is not None]
        return torch.stack([wide_linear(head, x) for head in heads], dim=1).unflatten(2, self.latent)


class TokenEmbedding(nn.Module):
    """LN and a linear layer to the encoder's width, plus learned positions.

    The LN takes away the language model's scale (T5's features are about ten times smaller than CLIP's).
    """

    def __init__(self, config: TextVEConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.token_width)
        self.linear = nn.Linear(config.token_width, config.width)
        self.positions = nn.Parameter(0.3 * torch.randn(config.max_tokens, config.width))

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n e"]:
        return self.linear(self.norm(tokens)) + self.positions[: tokens.shape[1]]


def gaussian_heads(width: int, out: int, config: TextVEConfig) -> tuple[nn.Linear, nn.Linear | None]:
    """Heads for mean and logvar: from unit-variance features, std(mean) = mean_std, and sigma as given.

    No head for a logvar that is fixed.
    """
    mean = nn.Linear(width, out)
    logvar = nn.Linear(width, out) if config.fixed_logvar is None else None
    nn.init.normal_(mean.weight, std=config.mean_std / math.sqrt(width))
    nn.init.zeros_(mean.bias)
    if logvar is not None:
        nn.init.zeros_(logvar.weight)
        nn.init.constant_(logvar.bias, 2 * math.log(config.sigma))
    return mean, logvar


def without_padding(
    tokens: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]
) -> tuple[Float[Tensor, "b m d"], Bool[Tensor, "b m"]]:
    """The tokens that someone may read, and zeros where there is none: a padded inf times weight 0 would be NaN."""
    n = readable(mask)
    tokens, mask = tokens[:, :n], mask[:, :n]
    return tokens.masked_fill(~mask[..., None], 0.0), mask


def _check_tokens(tokens: Tensor, config: TextVEConfig) -> None:
    _, n, d = tokens.shape
    if d != config.token_width:
        raise ValueError(f"tokens are {d} wide, the encoder reads token_width={config.token_width}")
    if n > config.max_tokens:
        raise ValueError(f"{n} tokens, the encoder reads max_tokens={config.max_tokens}; cut the captions")
    if config.kind == "released" and n != config.max_tokens:
        raise ValueError(f"{n} tokens, `released` needs exactly {config.max_tokens}; pad the captions")


BODIES: dict[str, Callable[[TextVEConfig], nn.Module]] = {
    "compact": CompactBody,
    "paper": PaperBody,
    "released": ReleasedBody,
}
