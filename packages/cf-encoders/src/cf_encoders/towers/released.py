"""The contrastive image tower of the authors' public code, structure and module names alike, so its weights load.

A ViT-L/16 of SigLIP's shape at 256 px, drawn at random and trained with the text encoder, and a head: at 256 px
Linear, GELU, LN, Linear; at 512 px the text encoder's adaptor. No class token; one latent query pools the patches.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cf_encoders.configs import config_from_dict, require_positive, require_shape
from cf_encoders.layers import attend
from cf_encoders.pretrained import Pretrained
from cf_encoders.released_text_ve import ADAPTOR_SIDE, ADAPTOR_WIDTH, Adaptor
from cf_encoders.towers.heads import ProjectionHead
from cf_encoders.weight_files import filled

CHANNELS = 4  # of the released latents; a head's shapes tell only c h w
HEADS = 16  # of all released towers; no shape tells it
LOG_SCALE = math.log(1 / 0.07)
NORM_EPS = 1e-6
MLP_RATIO = 4
INIT_STD = 0.02
TRUNK = "open_clip.visual.trunk"


@dataclass(frozen=True)
class ReleasedTowerConfig:
    """The defaults are the public tower at 256 px; at 512 px its latent is (4, 64, 64), which takes the adaptor."""

    latent: tuple[int, int, int] = (CHANNELS, 32, 32)  # (c, h, w) of z_0
    side: int = 256  # of the images the trunk sees; others are resized to it
    patch: int = 16
    width: int = 1024
    depth: int = 24
    heads: int = HEADS
    hidden: int = ADAPTOR_WIDTH  # of the linear head

    def __post_init__(self) -> None:
        require_shape(self, "latent")
        require_positive(self, "side", "patch", "width", "depth", "heads", "hidden")
        if self.side % self.patch or self.width % self.heads:
            raise ValueError(
                f"patch {self.patch} must divide side {self.side}, and heads {self.heads} width {self.width}"
            )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ReleasedTowerConfig":
        """The inverse of `to_dict`; an unknown key is a ValueError that lists the known ones."""
        return config_from_dict(cls, values)


class ReleasedTower(Pretrained, nn.Module, config=ReleasedTowerConfig):
    """Square images in [-1, 1] -> z_hat of z_0's shape.

    `open_clip.logit_scale` is kept as it is in the file and takes no part here: train with a `LogScale`. The public
    code multiplies its cosines by this parameter itself, `info_nce` by the exponential of what it is given. So to go
    on with public weights at the temperature they were trained with, start from `LogScale(tower.temperature())`;
    a new LogScale() would begin more than five times sharper. `to_public` writes a LogScale back in their terms.
    """

    def __init__(self, config: ReleasedTowerConfig) -> None:
        super().__init__()
        self.config, self.latent = config, config.latent
        self.open_clip = ImageHalf(config)
        large = config.latent[1:] == (ADAPTOR_SIDE, ADAPTOR_SIDE)
        self.open_clip_output = (
            Adaptor(config.width, config.latent[0])
            if large
            else ProjectionHead(config.width, config.hidden, math.prod(config.latent))
        )

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        features = self.open_clip.visual["trunk"](at_side(images, self.config.side))
        return self.open_clip_output(features).unflatten(1, self.latent)

    def temperature(self) -> float:
        """tau of the public training, 1 / logit_scale. ValueError where the scale, unclamped there, is not positive."""
        scale = self.open_clip.logit_scale.item()
        if scale <= 0:
            raise ValueError(
                f"the public logit scale is {scale:.3f}: no temperature gives it; use LogScale()"
            )
        return 1 / scale

    @classmethod
    def from_public(cls, state: Mapping[str, Tensor], heads: int = HEADS) -> "ReleasedTower":
        """The tower of the tensors `open_clip.*` and `open_clip_output.*` of a public file, copied; in eval mode.

        Sizes are read from the shapes, heads cannot be. Raises ValueError naming every tensor that is missing,
        unexpected or of the wrong shape.
        """
        config = read_config(state, heads)
        copies = {name: tensor.detach().clone() for name, tensor in state.items()}
        tower = filled(lambda: cls(config), copies, "the public image tower")
        assert isinstance(tower, cls)
        return tower

    def to_public(self, log_scale: Float[Tensor, ""] | None = None) -> dict[str, Tensor]:
        """The tensors under their public names: the tower's own, not copies.

        log_scale  what `LogScale` gave in a training that went on here; its exponential becomes the logit scale, by
                   which the public code multiplies. Without one the scale is that of the file, or CLIP's first.
        """
        state = self.state_dict()
        if log_scale is not None:
            state["open_clip.logit_scale"] = log_scale.detach().exp()
        return dict(state)


class ImageHalf(nn.Module):
    """What the public code keeps of an open_clip model: the vision trunk and the logit scale."""

    def __init__(self, config: ReleasedTowerConfig) -> None:
        super().__init__()
        self.visual = nn.ModuleDict({"trunk": Trunk(config)})
        # without a gradient: DDP would wait for one that never comes
        self.logit_scale = nn.Parameter(torch.tensor(LOG_SCALE), requires_grad=False)


class Trunk(nn.Module):
    """timm's vision transformer with attention pooling: images (b, 3, side, side) -> features (b, width)."""

    def __init__(self, config: ReleasedTowerConfig) -> None:
        super().__init__()
        width, patches = config.width, (config.side // config.patch) ** 2
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, config.patch, stride=config.patch)})
        self.pos_embed = nn.Parameter(torch.empty(1, patches, width))
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn_pool = LatentPool(width, config.heads)
        nn.init.trunc_normal_(self.pos_embed, std=INIT_STD)
        self.apply(_init_linear)

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b d"]:
        x = rearrange(self.patch_embed["proj"](images), "b d h w -> b (h w) d") + self.pos_embed
        everywhere = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        for block in self.blocks:
            x = block(x, everywhere)
        return self.attn_pool(self.norm(x), everywhere)


class Block(nn.Module):
    """x + attention(LN x); x + mlp(LN x)"""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=NORM_EPS), nn.LayerNorm(width, eps=NORM_EPS)
        self.attn, self.mlp = SelfAttention(width, heads), Mlp(width)

    def forward(self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        x = x + self.attn(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class SelfAttention(nn.Module):
    """Multi-head self-attention from one matrix with rows [q | k | v]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        q, k, v = rearrange(self.qkv(x), "b n (three k d) -> three b k n d", three=3, k=self.heads)
        return self.proj(rearrange(attend(q, k, v, mask), "b k n d -> b n (k d)"))


class Mlp(nn.Module):
    """Linear, exact GELU, Linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, MLP_RATIO * width), nn.Linear(MLP_RATIO * width, width)

    def forward(self, x: Float[Tensor, "*d"]) -> Float[Tensor, "*d"]:
        return self.fc2(F.gelu(self.fc1(x)))


class LatentPool(nn.Module):
    """One learned query attends to all patches: y = proj(attention); y + mlp(LN y)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.latent = nn.Parameter(torch.empty(1, 1, width))
        self.q, self.kv, self.proj = (nn.Linear(width, rows) for rows in (width, 2 * width, width))
        self.norm, self.mlp = nn.LayerNorm(width, eps=NORM_EPS), Mlp(width)
        nn.init.trunc_normal_(self.latent, std=width**-0.5)

    def forward(self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b d"]:
        q = rearrange(self.q(self.latent).expand(len(x), -1, -1), "b m (k d) -> b k m d", k=self.heads)
        k, v = rearrange(self.kv(x), "b n (two k d) -> two b k n d", two=2, k=self.heads)
        y = self.proj(rearrange(attend(q, k, v, mask), "b k 1 d -> b (k d)"))
        return y + self.mlp(self.norm(y))


def at_side(images: Float[Tensor, "b 3 H W"], side: int) -> Float[Tensor, "b 3 t t"]:
    """Square images resized to `side`, bicubic with antialiasing; ValueError for others, which would be squeezed."""
    _, channels, h, w = images.shape
    if channels != 3 or h != w:
        raise ValueError(f"the tower sees square images (b, 3, s, s), got {tuple(images.shape)}; crop them")
    if h == side:
        return images
    return F.interpolate(images, (side, side), mode="bicubic", antialias=True)


def read_config(state: Mapping[str, Tensor], heads: int = HEADS) -> ReleasedTowerConfig:
    """The sizes of a public tower from its names and shapes. ValueError naming a tensor that is needed for it."""
    _, patches, width = _shape(state, f"{TRUNK}.pos_embed", 3)
    *_, patch = _shape(state, f"{TRUNK}.patch_embed.proj.weight", 4)
    blocks = {int(found[1]) for name in state if (found := re.match(rf"{TRUNK}\.blocks\.(\d+)\.", name))}
    large = "open_clip_output.conv3.weight" in state
    if large:
        channels = _shape(state, "open_clip_output.conv3.weight", 4)[0]
        latent, hidden = (channels, ADAPTOR_SIDE, ADAPTOR_SIDE), ADAPTOR_WIDTH
    else:
        numbers, hidden = _shape(state, "open_clip_output.fc2.weight", 2)
        side = math.isqrt(numbers // CHANNELS)
        if CHANNELS * side**2 != numbers:
            raise ValueError(f"open_clip_output gives {numbers} numbers, not {CHANNELS} channels of a square")
        latent = (CHANNELS, side, side)
    return ReleasedTowerConfig(
        latent=latent,
        side=math.isqrt(patches) * patch,
        patch=patch,
        width=width,
        depth=len(blocks),
        heads=heads,
        hidden=hidden,
    )


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state:
        raise ValueError(f"the public image tower lacks {name}, which tells its size")
    shape = tuple(state[name].shape)
    if len(shape) != dimensions:
        raise ValueError(f"{name} is {shape}, expected {dimensions} dimensions")
    return shape


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INIT_STD)
        nn.init.zeros_(module.bias)
