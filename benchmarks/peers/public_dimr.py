"""DiMR as the public code runs it, written anew from its description: the thing to be compared with.

The same network, weights and velocity as `cf_transformer.DiMR`, by other means:

    time        every module is visited before each forward and gamma(t) written into its attributes, five element-wise
                operations a vector; asking whether all t are equal waits for the device
    norms       x.norm, a division and a product, each an operation of its own; in fp32 under autocast
    attention   q, k, v permuted out of one product and cast to fp32 before the softmax attention
    MLP         two products of the same x, the gate, the third product
    convnext    tokens to NCHW and back around each depthwise convolution
    cascade     all N + 1 maps concatenated, TD-LN over all their channels, one product
    heads       all are computed, also where only the last is wanted
    training    every block is recomputed in the backward pass
    guidance    two forwards: `classifier_free(v, scale, batched=False)`

No figure of it is a figure of the public code itself.
"""

from typing import cast

import torch
import torch.nn.functional as F
from cf_transformer import DiMR, StageConfig, TDLayerNorm, TimeLerp
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

RMS_EPS, LAYER_NORM_EPS = 1e-8, 1e-5


class TimeVector(nn.Module):
    """One vector that moves with time; its value of the moment is an attribute."""

    def __init__(self, leaves: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        super().__init__()
        self.param0, self.param1, self.w, self.b = (nn.Parameter(leaf.detach().clone()) for leaf in leaves)
        self.current: Tensor | None = None

    def seed(self, c: Tensor) -> None:
        """Five element-wise operations; c is (1 or b, 1)."""
        slope = self.w + 1
        s = torch.sigmoid(torch.addcmul(self.b, slope, c))
        self.current = torch.addcmul(self.param1, s, self.param0 - self.param1)

    def value(self) -> Tensor:
        """(1 or b, 1, d); ValueError before the first `seed`."""
        if self.current is None:
            raise ValueError("this vector has no value yet; call the model, which seeds the time of all")
        return self.current[:, None]


def vectors(lerp: TimeLerp) -> list[TimeVector]:
    """The stacked rows of ours, one by one."""
    return [
        TimeVector(rows)
        for rows in zip(*(leaf.unbind(0) for leaf in (lerp.param0, lerp.param1, lerp.w, lerp.b)), strict=True)
    ]


def one_vector(lerp: TimeLerp) -> TimeVector:
    """All rows of ours side by side."""
    param0, param1, w, b = (leaf.flatten() for leaf in (lerp.param0, lerp.param1, lerp.w, lerp.b))
    return TimeVector((param0, param1, w, b))


def seed_time(model: nn.Module, t: Tensor) -> None:
    """Write gamma(t) into every TimeVector of the model."""
    log_snr = 4 - 8 * t.to(torch.promote_types(t.dtype, torch.float32))
    if torch.all(log_snr == log_snr[0]):  # waits for the device
        log_snr = log_snr[:1]
    c = log_snr[:, None] / 4
    for module in model.modules():
        if isinstance(module, TimeVector):
            module.seed(c)


class RMSNorm(nn.Module):
    """gamma(t) x / (rms(x) + eps)."""

    def __init__(self, gain: TimeVector) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """Three passes over x."""
        rms = x.norm(2, dim=-1, keepdim=True) * x.shape[-1] ** -0.5
        return x / (rms + RMS_EPS) * self.gain.value()


class LayerNorm(nn.Module):
    """gamma(t) LN(x) + beta(t)."""

    def __init__(self, gain: TimeVector, shift: TimeVector) -> None:
        super().__init__()
        self.gain, self.shift = gain, shift

    @classmethod
    def like(cls, norm: TDLayerNorm) -> "LayerNorm":
        """With the weights of ours."""
        return cls(one_vector(norm.gain), one_vector(norm.shift))

    def forward(self, x: Tensor) -> Tensor:
        """Two passes over x."""
        normed = F.layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPS)
        return torch.addcmul(self.shift.value(), normed, self.gain.value())


class Attention(nn.Module):
    """Self-attention; q, k, v in fp32."""

    def __init__(self, d: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(d, 3 * d, bias=False)
        self.out = nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        """Every token attends to every token."""
        b, n, d = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.n_heads, d // self.n_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.to(torch.promote_types(qkv.dtype, torch.float32)).unbind(0)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))


class MLP(nn.Module):
    """w2(act(w0 x) * w1 x)."""

    def __init__(self, d: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.activation = {"gelu": F.gelu, "silu": F.silu}[activation]
        self.w0, self.w1, self.w2 = nn.Linear(d, hidden), nn.Linear(d, hidden), nn.Linear(hidden, d)

    def forward(self, x: Tensor) -> Tensor:
        """Token by token."""
        return self.w2(self.activation(self.w0(x)) * self.w1(x))


class TransformerBlock(nn.Module):
    """Attention and MLP, each behind a norm and added to x."""

    def __init__(self, norms: list[RMSNorm], attention: Attention, mlp: MLP) -> None:
        super().__init__()
        self.norm1, self.norm2 = norms
        self.attention, self.mlp = attention, mlp

    def forward(self, x: Tensor) -> Tensor:
        """(b, n, d) to the same."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution and MLP, each added to x; no norm before the convolution."""

    def __init__(self, norms: list[RMSNorm], conv: nn.Conv2d, mlp: MLP, grid: tuple[int, int]) -> None:
        super().__init__()
        (self.norm,) = norms
        self.conv, self.mlp, self.grid = conv, mlp, grid

    def forward(self, x: Tensor) -> Tensor:
        """(b, n, d) to the same."""
        image = x.unflatten(1, self.grid).permute(0, 3, 1, 2)
        x = x + self.conv(image).permute(0, 2, 3, 1).flatten(1, 2)
        return x + self.mlp(self.norm(x))


class Stage(nn.Module):
    """A U-ViT that keeps every map for the stage above."""

    def __init__(self, model: DiMR, index: int) -> None:
        super().__init__()
        config, stage, ours = model.config, model.config.stages[index], model.stages[index]
        d = stage.d_model
        self.embed = nn.Conv2d(config.channels, d, stage.patch, stage.patch)
        self.position = nn.Parameter(ours.embed.position.table.detach().clone())
        norms = [RMSNorm(vector) for vector in vectors(ours.gains)]
        per_block = ours.norms_per_block
        self.blocks = nn.ModuleList(
            _block(model, stage, norms[i * per_block : (i + 1) * per_block]) for i in range(stage.n_blocks)
        )
        self.skips = nn.ModuleList(nn.Linear(2 * d, d) for _ in ours.skips)

    def forward(
        self, x_t: Tensor, added: Tensor | None, token: Tensor | None, recompute: bool
    ) -> list[Tensor]:
        """The embedding and the output of every block, (N + 1) maps without the token."""
        x = self.embed(x_t).flatten(2).transpose(1, 2) + self.position
        x = x if added is None else x + added
        maps = [x]
        first = 0 if token is None else 1
        x = x if token is None else torch.cat([token, x], dim=1)
        half, pushed = len(self.blocks) // 2, []
        for i, block in enumerate(self.blocks):
            if i > half:
                x = self.skips[i - half - 1](torch.cat([x, pushed.pop()], dim=-1))
            x = cast("Tensor", checkpoint(block, x, use_reentrant=False)) if recompute else block(x)
            if i < half:
                pushed.append(x)
            maps.append(x[:, first:])
        return maps


def _block(model: DiMR, stage: StageConfig, norms: list[RMSNorm]) -> TransformerBlock | ConvNeXtBlock:
    config, d = model.config, stage.d_model
    mlp = MLP(d, config.hidden(stage), config.activation)
    if stage.n_heads is not None:
        return TransformerBlock(norms, Attention(d, stage.n_heads), mlp)
    conv = nn.Conv2d(d, d, config.kernel_size, padding=config.kernel_size // 2, groups=d)
    return ConvNeXtBlock(norms, conv, mlp, config.grid(stage))


class Upsample(nn.Module):
    """All maps of a stage, concatenated, to what is added to the next embedding."""

    def __init__(self, model: DiMR, index: int) -> None:
        super().__init__()
        ours = model.cascades[index]
        self.grid, self.ratio = ours.grid, ours.ratio
        self.norm_in = LayerNorm(one_vector(ours.gain), one_vector(ours.shift))
        self.project = nn.Linear(ours.project.in_features, ours.project.out_features)
        self.norm_out = LayerNorm.like(ours.norm)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """(b, n, d) maps to (b, ratio^2 n, e)."""
        x = self.project(self.norm_in(torch.cat(maps, dim=-1)))
        y, r = self.grid[0], self.ratio
        return self.norm_out(rearrange(x, "b (y x) (p q d) -> b (y p x q) d", y=y, p=r, q=r))


class Head(nn.Module):
    """TD-LN and a 3 x 3 convolution to the velocity."""

    def __init__(self, model: DiMR, index: int) -> None:
        super().__init__()
        ours = model.heads[index]
        self.grid, self.upscale = ours.grid, ours.upscale
        self.norm = LayerNorm.like(ours.norm)
        self.conv = nn.Conv2d(ours.conv.in_channels, ours.conv.out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, n, d) to (b, c, h, w)."""
        image = self.conv(self.norm(x).unflatten(1, self.grid).permute(0, 3, 1, 2))
        p = self.upscale
        return rearrange(image, "b (p q c) h w -> b c (h p) (w q)", p=p, q=p)


class PublicDiMR(nn.Module):
    """The public way through the weights of `model`, which are copied.

    `recompute`: whether training runs every block's forward twice, as the public code does, to save memory.
    """

    def __init__(self, model: DiMR, recompute: bool = True) -> None:
        super().__init__()
        if model.config.query_key != "plain":
            raise ValueError(
                f"query_key is {model.config.query_key!r}; the public code runs without QK-norm and RoPE: 'plain'"
            )
        self.recompute, self.d = recompute, model.config.stages[0].d_model
        self.conditional = nn.Parameter(model.indicator.conditional.detach().clone())
        self.unconditional = nn.Parameter(model.indicator.unconditional.detach().clone())
        n_stages = len(model.config.stages)
        self.stages = nn.ModuleList(Stage(model, i) for i in range(n_stages))
        self.upsamples = nn.ModuleList(Upsample(model, i) for i in range(n_stages - 1))
        self.heads = nn.ModuleList(Head(model, i) for i in range(n_stages))
        self.to(self.conditional.device, self.conditional.dtype)  # before the copy, which would round
        copy_layers(self, model)

    def forward(self, x_t: Tensor, t: Tensor, is_null: Tensor) -> Tensor:
        """The velocity at x_t."""
        return self.scales(x_t, t, is_null)[-1]

    def scales(self, x_t: Tensor, t: Tensor, is_null: Tensor) -> tuple[Tensor, ...]:
        """The velocity of every stage, low to high."""
        seed_time(self, t)
        token = torch.where(is_null[:, None], self.unconditional, self.conditional).expand(-1, self.d)[
            :, None
        ]
        recompute = self.recompute and self.training and torch.is_grad_enabled()
        maps: list[Tensor] = []
        predictions = []
        for i, (stage, head) in enumerate(zip(self.stages, self.heads, strict=True)):
            added = self.upsamples[i - 1](maps) if i else None
            maps = stage(x_t, added, None if i else token, recompute)
            predictions.append(head(maps[-1]).to(x_t.dtype))
        return tuple(predictions)


@torch.no_grad()
def copy_layers(public: PublicDiMR, model: DiMR) -> None:
    """Weights of every Linear and Conv2d of `model`; what depends on time was copied when it was built."""
    for theirs, ours in zip(public.stages, model.stages, strict=True):
        _copy(theirs.embed, ours.embed.project)
        for their_skip, our_skip in zip(theirs.skips, ours.skips, strict=True):
            _copy(their_skip, our_skip)
        for their_block, our_block in zip(theirs.blocks, ours.blocks, strict=True):
            if isinstance(their_block, TransformerBlock):
                _copy(their_block.attention.qkv, our_block.attention.qkv)
                _copy(their_block.attention.out, our_block.attention.out)
            else:
                _copy(their_block.conv, our_block.depthwise)
            _copy_mlp(their_block.mlp, our_block.mlp)
    for theirs, ours in zip(public.upsamples, model.cascades, strict=True):
        _copy(theirs.project, ours.project)
    for theirs, ours in zip(public.heads, model.heads, strict=True):
        _copy(theirs.conv, ours.conv)


def _copy(to: nn.Module, layer: nn.Module) -> None:
    to.load_state_dict(layer.state_dict())


def _copy_mlp(to: MLP, mlp: nn.Module) -> None:
    """Ours makes both inner products as one: rows of the gate first, then those of what it gates."""
    for name in ("weight", "bias"):
        gate, gated = mlp.w_in.get_parameter(name).chunk(2)
        to.w0.get_parameter(name).copy_(gate)
        to.w1.get_parameter(name).copy_(gated)
    _copy(to.w2, mlp.w_out)
