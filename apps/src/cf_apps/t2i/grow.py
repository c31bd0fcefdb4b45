"""A trained model for twice the resolution, or four times: 256 px, then 512 px (CrossFlow section 5.1).

The backbone grows exactly: `cf_transformer.grow_resolution` adds a convnext stage and enlarges the patches below,

    grown.scales(x_t, t)[:-1] = model.scales(avgpool(x_t), t).

The text encoder's last layer grows with the latent: every number of the mean is repeated on f x f cells, so that
avgpool(mean) is the old mean, and logvar likewise. Each cell draws noise of its own, so the pooled x_0 has 1 / f of the
old sigma.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from cf_encoders import ImageTowerConfig, TextVEConfig
from cf_transformer import DiMR, DiMRConfig, grow_resolution
from cf_transformer.grow import grown_config as grown_dimr
from einops import repeat
from torch import Tensor

from cf_apps.engine.errors import ConfigError
from cf_apps.engine.saving.state import load_tensors, named_tensors
from cf_apps.t2i.config import T2IConfig

State = Mapping[str, Tensor]
HOW_COMPUTED = (
    "recompute",
    "attention",
    "init",
    "zero_init_head",
)  # fields of a DiMR that its weights do not know


def grown_config(config: T2IConfig, doublings: int = 1) -> T2IConfig:
    """The recipe of the grown model: the same at 2^doublings times the image size.

    loss.kl_weight falls with the size of the latent, as the KL is a sum over it. ConfigError says what cannot grow.
    """
    backbone, f = _grown_backbone_config(config, doublings), 2**doublings
    text_ve, tower, (c, h, w) = config.text_ve, config.image_tower, config.latent
    assert text_ve is not None
    if config.loss.scale_weights is not None:
        raise ConfigError(
            "loss.scale_weights are of the old stages; set them to null, or weigh the new stage as well"
        )
    latent = (c, h * f, w * f)
    patch = text_ve.patch * f if text_ve.kind == "compact" else text_ve.patch
    return replace(
        config,
        image_size=config.image_size * f,
        text_ve=replace(text_ve, latent=latent, patch=patch),
        backbone=backbone,
        image_tower=None if tower is None else _grown_tower(tower, latent, f),
        text_tower=None if config.text_tower is None else replace(config.text_tower, latent=latent),
        text_decoder=None if config.text_decoder is None else replace(config.text_decoder, latent=latent),
        loss=replace(config.loss, kl_weight=config.loss.kl_weight / f**2),
    )


def doublings_between(small: T2IConfig, large: T2IConfig) -> int:
    """How many times the latent of `small` doubles to be that of `large`; 0 where they are equal.

    Raises ConfigError where it does not, and where the backbone of `large` is not that of `small` grown.
    """
    (c, h, w), (d, m, n) = small.latent, large.latent
    doublings = max(m // h, 1).bit_length() - 1
    if (c, h << doublings, w << doublings) != (d, m, n):
        raise ConfigError(
            f"its latent is {small.latent}, this one {large.latent}; start from an equal one, or half as high and wide"
        )
    if doublings and _shape(_grown_backbone_config(small, doublings)) != _shape(large.backbone):
        wanted = [
            (s.kind, s.d_model, s.n_blocks, s.patch) for s in _grown_backbone_config(small, doublings).stages
        ]
        raise ConfigError(
            f"its backbone grows to the stages (kind, d_model, n_blocks, patch) {wanted} and is otherwise as it was; "
            "set backbone to that"
        )
    return doublings


def grown_tensors(
    tensors: State, small: T2IConfig, large: T2IConfig, doublings: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """The weights of the grown model, as far as the old ones say them; what only trains the encoder as it was.

    generator: of the new stage's weights.
    """
    assert isinstance(small.backbone, DiMRConfig)  # doublings_between saw to it
    assert small.text_ve is not None
    assert large.text_ve is not None
    model = DiMR(small.backbone)
    old = {name.removeprefix("backbone."): t for name, t in tensors.items() if name.startswith("backbone.")}
    load_tensors(named_tensors(model), old, "the backbone to grow")
    grown = {
        f"backbone.{name}": t for name, t in grow_resolution(model, doublings, generator).state_dict().items()
    }
    others = {name: t for name, t in tensors.items() if not name.startswith("backbone.")}
    return grown | others | _grown_text_ve(tensors, small.text_ve, large.text_ve, 2**doublings)


def _grown_text_ve(tensors: State, small: TextVEConfig, large: TextVEConfig, f: int) -> dict[str, Tensor]:
    """The layers of the text encoder that write the latent, each of its cells repeated f x f times.

    Left out where no such layer says the same at the new size: `released` at 64 x 64 has convolutions there.
    """
    if small.kind != large.kind:
        return {}
    if small.kind == "compact" and small.patch == large.patch == 1:  # a query for each cell
        of_cells = {"h": small.latent[1], "w": small.latent[2]}
        rows, names = "(h w) ... -> (h i w j) ...", ("queries",)
    elif small.kind == "compact":  # a query for each patch, which grows with the latent
        of_cells = {"p": small.patch, "q": small.patch}
        rows, names = "(c p q) ... -> (c p i q j) ...", ("mean.", "logvar.")
        if large.patch != f * small.patch:
            return {}
    else:
        of_cells = {"h": small.latent[1], "w": small.latent[2]}
        rows, names = "(c h w) ... -> (c h i w j) ...", ("mean.", "logvar.", "linear.")
    written = tuple(f"text_ve.body.{name}" for name in names)
    return {
        name: repeat(tensor, rows, i=f, j=f, **of_cells)
        for name, tensor in tensors.items()
        if name.startswith(written)
    }


def _grown_tower(tower: ImageTowerConfig, latent: tuple[int, int, int], f: int) -> ImageTowerConfig:
    c, h, w = tower.image
    return replace(tower, image=(c, h * f, w * f), latent=latent)


def _grown_backbone_config(config: T2IConfig, doublings: int) -> DiMRConfig:
    if not isinstance(config.backbone, DiMRConfig) or config.text_ve is None:
        raise ConfigError("only a DiMR whose source is the text grows to another resolution")
    try:
        return grown_dimr(config.backbone, doublings)
    except ValueError as error:
        raise ConfigError(f"its backbone cannot grow: {error}") from error


def _shape(backbone: object) -> object:
    """The config without the fields that do not concern weights."""
    if not isinstance(backbone, DiMRConfig):
        return backbone
    return {name: value for name, value in backbone.to_dict().items() if name not in HOW_COMPUTED}
