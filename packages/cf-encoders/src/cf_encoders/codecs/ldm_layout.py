"""CompVis' names for the weights of AutoencoderKL, and diffusers'.

The public CrossFlow code reads `autoencoder_kl.pth`: a flat mapping of 248 tensors under the names of latent
diffusion (Rombach et al. 2022), with nothing before `encoder.`, `decoder.`, `quant_conv.`, `post_quant_conv.`.
The two layouts differ in names, in the order of the decoder's levels (CompVis counts from the highest resolution,
diffusers in the order they run) and in the attention's projections (1 x 1 convolutions there, linear here).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from cf_encoders.configs import require_positive
from cf_encoders.located import needs
from cf_encoders.public_weights import read_public
from cf_encoders.weight_files import filled, require_match, shapes

# diffusers' part of a name -> CompVis', in the order they are applied
RENAMES = (
    (r"\.down_blocks\.(\d+)\.resnets\.(\d+)\.", r".down.\1.block.\2."),
    (r"\.down_blocks\.(\d+)\.downsamplers\.0\.", r".down.\1.downsample."),
    (r"\.up_blocks\.(\d+)\.resnets\.(\d+)\.", r".up.\1.block.\2."),
    (r"\.up_blocks\.(\d+)\.upsamplers\.0\.", r".up.\1.upsample."),
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
    (r"\.attn_1\.group_norm\.", ".attn_1.norm."),
    (r"\.attn_1\.to_([qkv])\.", r".attn_1.\1."),
    (r"\.attn_1\.to_out\.0\.", ".attn_1.proj_out."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.conv_norm_out\.", ".norm_out."),
)
PROJECTION = re.compile(r"\.attn_1\.(q|k|v|proj_out)\.weight$")
State = Mapping[str, Tensor]


@dataclass(frozen=True)
class LDMSize:
    """What decides the shape of the autoencoder. norm_groups: of every group norm; no tensor's shape tells it."""

    widths: tuple[int, ...]
    layers_per_block: int = 2
    latent_channels: int = 4
    norm_groups: int = 32

    def __post_init__(self) -> None:
        require_positive(self, "layers_per_block", "latent_channels", "norm_groups")
        wrong = [width for width in self.widths if width < 1 or width % self.norm_groups]
        if wrong or not self.widths:
            raise ValueError(
                f"LDMSize.widths must be multiples of norm_groups={self.norm_groups}, one per level, got {self.widths}"
            )

    def build(self) -> Any:
        """diffusers' AutoencoderKL of this size, with random weights."""
        return needs("diffusers", "diffusers").AutoencoderKL(
            block_out_channels=self.widths,
            layers_per_block=self.layers_per_block,
            latent_channels=self.latent_channels,
            norm_num_groups=self.norm_groups,
            down_block_types=("DownEncoderBlock2D",) * len(self.widths),
            up_block_types=("UpDecoderBlock2D",) * len(self.widths),
        )


KL_F8 = LDMSize(widths=(128, 256, 512, 512))  # Stable Diffusion's: 83,653,863 weights, 1/8 of each side


def load_ldm(path: Path | str, size: LDMSize = KL_F8) -> Any:
    """diffusers' AutoencoderKL with the weights of a CompVis state dict. Only tensors are unpickled.

    FileNotFoundError for no file; ValueError for something else than a flat mapping of tensors, or naming the
    tensors, as the file does, that are missing, unexpected or of another shape.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {path}; expected a state dict such as autoencoder_kl.pth")
    found = read_public(path)
    with torch.device("meta"):
        expected = size.build().state_dict()
    require_match(shapes(found), shapes(to_ldm(expected)), str(path))
    # copied: what was read may still lie on the disk
    state = {name: tensor.to(torch.float32, copy=True) for name, tensor in from_ldm(found, expected).items()}
    return filled(size.build, state, str(path))


def to_ldm(state: State) -> dict[str, Tensor]:
    """A state dict of diffusers' AutoencoderKL under CompVis' names and shapes; views, not copies."""
    levels = count_levels(state)
    renamed = {ldm_name(name, levels): tensor for name, tensor in state.items()}
    return {
        name: rearrange(tensor, "o i -> o i 1 1") if PROJECTION.search(name) else tensor
        for name, tensor in renamed.items()
    }


def from_ldm(state: State, names: Iterable[str]) -> dict[str, Tensor]:
    """The inverse of `to_ldm`, for the `names` of diffusers' state dict: there is one table for both ways."""
    names = list(names)
    levels = count_levels(names)
    published = {name: ldm_name(name, levels) for name in names}
    return {
        name: rearrange(state[ldm], "o i 1 1 -> o i") if PROJECTION.search(ldm) else state[ldm]
        for name, ldm in published.items()
    }


def ldm_name(name: str, levels: int) -> str:
    """`decoder.up_blocks.0.resnets.2.conv1.bias` -> `decoder.up.3.block.2.conv1.bias`, for 4 levels"""
    for pattern, published in RENAMES:
        name = re.sub(pattern, published, name)
    return re.sub(r"(?<=^decoder\.up\.)\d+", lambda level: str(levels - 1 - int(level[0])), name)


def count_levels(names: Iterable[str]) -> int:
    """How many levels the decoder has, from diffusers' names."""
    found = {match[1] for name in names if (match := re.match(r"decoder\.up_blocks\.(\d+)\.", name))}
    return len(found)
