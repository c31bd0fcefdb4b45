"""DiT: the diffusion transformer with adaLN-Zero, as a velocity network v(x_t, t, 1_c) (Peebles and Xie 2023)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cf_transformer.attention import SelfAttention
from cf_transformer.config import AttentionKind
from cf_transformer.dit_config import DiTConfig
from cf_transformer.indicator import Indicator
from cf_transformer.init import STD
from cf_transformer.inputs import require_inputs
from cf_transformer.position import PatchEmbed
from cf_transformer.precision import at_least_fp32
from cf_transformer.pretrained import Pretrained
from cf_transformer.recompute import RECOMPUTE
from cf_transformer.sinusoid import grid_positions, time_features

LAYER_NORM_EPS = 1e-6
TIME_FEATURES = 256


class DiT(Pretrained, nn.Module, config=DiTConfig):
    """Patches at fixed places, blocks of one width, and time and indicator through adaLN-Zero.

    A fresh DiT is 0 everywhere: every block starts as the identity and the output layer at zero.
    `generator` seeds the initial weights; without one they come from PyTorch's default generator.
    """

    def __init__(self, config: DiTConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        d = config.d_model
        self.embed = PatchEmbed(config.channels, d, config.patch, config.grid, positions=False)
        self.time = TimeEmbedding(d, config.time_scale)
        self.indicator = Indicator(d, "paper")
        self.blocks = nn.ModuleList(
            DiTBlock(d, config.hidden, config.n_heads, config.attention) for _ in range(config.n_blocks)
        )
        self.head = DiTHead(config.channels, d, config.patch, config.grid)
        self.run = RECOMPUTE[config.recompute]
        _initialise(self, generator)

    def forward(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, "b"], is_null: Bool[Tensor, "b"] | None = None
    ) -> Float[Tensor, "b c h w"]:
        """The velocity at x_t: towards the paired x_1, or towards any x_1 where `is_null`.

        Raises ValueError when x_t or t does not have the shape of the config.
        """
        require_inputs(x_t, t, self.config.channels, self.config.size)
        if is_null is None:
            is_null = torch.zeros_like(t, dtype=torch.bool)
        condition = F.silu(self.time(t) + self.indicator(is_null))
        x = self.embed(x_t)
        x = x + grid_positions(self.config.grid, self.config.d_model, like=self.embed.project.weight)
        for block in self.blocks:
            x = self.run(block, x, condition)
        return self.head(x, condition).to(x_t.dtype)

    def scales(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, "b"], is_null: Bool[Tensor, "b"] | None = None
    ) -> tuple[Float[Tensor, "b c h w"]]:
        """The velocity alone, in a tuple: a DiT has one resolution where a DiMR has several."""
        return (self(x_t, t, is_null),)


class TimeEmbedding(nn.Module):
    """W2 silu(W1 f(t)), both biased, with f(t) the 128 cosines and 128 sines of `time_features`."""

    def __init__(self, d: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.w1 = nn.Linear(TIME_FEATURES, d)
        self.w2 = nn.Linear(d, d)

    def forward(self, t: Float[Tensor, "b"]) -> Float[Tensor, "b 1 d"]:
        """As one token, to be added to the indicator."""
        features = time_features(t, TIME_FEATURES, self.scale)[:, None]
        return self.w2(F.silu(self.w1(features.to(self.w1.weight.dtype))))


class DiTBlock(nn.Module):
    """x + g Attn((1 + s) LN(x) + h), then the same with an MLP: W2 gelu(W1 x), tanh-approximated.

    (h, s, g) of the attention and (h, s, g) of the MLP are one linear function of the condition, zero at first.
    """

    def __init__(self, d: int, hidden: int, n_heads: int, attention: AttentionKind) -> None:
        super().__init__()
        self.attention = SelfAttention(d, n_heads, attention, bias=True)
        self.w1 = nn.Linear(d, hidden)
        self.w2 = nn.Linear(hidden, d)
        self.modulation = nn.Linear(d, 6 * d)

    def forward(self, x: Float[Tensor, "b n d"], condition: Float[Tensor, "b 1 d"]) -> Float[Tensor, "b n d"]:
        """`condition` has been through its silu."""
        h_attention, s_attention, g_attention, h_mlp, s_mlp, g_mlp = self.modulation(condition).chunk(
            6, dim=-1
        )
        x = x + g_attention * self.attention(modulated(x, h_attention, s_attention))
        return x + g_mlp * self._mlp(modulated(x, h_mlp, s_mlp))

    def _mlp(self, x: Tensor) -> Tensor:
        return self.w2(F.gelu(self.w1(x), approximate="tanh"))


class DiTHead(nn.Module):
    """(1 + s) LN(x) + h, then every token becomes its patch x patch pixels, in (row, column, channel) order."""

    def __init__(self, channels: int, d: int, patch: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.patch, self.grid = patch, grid
        self.modulation = nn.Linear(d, 2 * d)
        self.project = nn.Linear(d, patch * patch * channels)

    def forward(
        self, x: Float[Tensor, "b n d"], condition: Float[Tensor, "b 1 d"]
    ) -> Float[Tensor, "b c h w"]:
        """The velocity at full resolution."""
        shift, scale = self.modulation(condition).chunk(2, dim=-1)
        cells = self.project(modulated(x, shift, scale))
        p = self.patch
        return rearrange(cells, "b (y x) (p q c) -> b c (y p) (x q)", y=self.grid[0], p=p, q=p)


def modulated(
    x: Float[Tensor, "b n d"], shift: Float[Tensor, "b 1 d"], scale: Float[Tensor, "b 1 d"]
) -> Float[Tensor, "b n d"]:
    """(1 + scale) LN(x) + shift; the norm has no parameters. In fp32 at least, returned in x's precision."""
    wide = at_least_fp32(x)
    normed = F.layer_norm(wide, x.shape[-1:], eps=LAYER_NORM_EPS)
    return torch.addcmul(shift.to(wide.dtype), normed, 1 + scale.to(wide.dtype)).to(x.dtype)


@torch.no_grad()
def _initialise(model: DiT, generator: torch.Generator | None) -> None:
    """DiT's start: Xavier-uniform products, biases 0; time and indicator normal(0, 0.02); adaLN and output at zero."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight.flatten(1), generator=generator)
            if module.bias is not None:
                module.bias.zero_()
    for weight in (model.time.w1.weight, model.time.w2.weight, *model.indicator.parameters()):
        nn.init.normal_(weight, std=STD, generator=generator)
    for module in model.modules():
        if isinstance(module, DiTBlock | DiTHead):
            nn.init.zeros_(module.modulation.weight)
    nn.init.zeros_(model.head.project.weight)
