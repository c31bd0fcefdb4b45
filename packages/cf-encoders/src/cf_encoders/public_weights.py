"""The text encoder of the public CrossFlow checkpoints, in and out.

A public file is one flat mapping from names to tensors: the velocity network, the text encoder (`context_encoder`)
and the contrastive image tower with its head (`open_clip`, `open_clip_output`). The text encoder's tensors are those
of `TextVE(kind="released").body`, name by name and shape by shape. CLIP's has no `compressor`, T5's has one; at 256 px
it ends in `linear`, at 512 px in `adaptor`.
"""

import pickle
import re
import zipfile
from collections.abc import Mapping
from math import isqrt
from pathlib import Path

import torch
from torch import Tensor

from cf_encoders.released_text_ve import ADAPTOR_SIDE
from cf_encoders.text_ve import TextVE
from cf_encoders.text_ve_config import TextVEConfig
from cf_encoders.weight_files import filled, replaced, require_match, shapes

BACKBONE = "backbone"
TEXT_ENCODER = "context_encoder"
PARTS = (TEXT_ENCODER, "open_clip", "open_clip_output")  # all else is the velocity network's
HEADS = 8  # of every layer of the released encoders, whatever its width; no shape tells it
CHANNELS = 4  # of the latent; the shape of `linear` tells only c h w
DROPOUT = 0.1  # what they were trained with
State = Mapping[str, Tensor]


def load_public_text_ve(
    source: str | Path | State,
    *,
    heads: int = HEADS,
    latent: tuple[int, int, int] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> TextVE:
    """The text encoder of a public .pth file, or of the tensors read from one; in eval mode.

    source  a released file, `nnet.pth` or `nnet_ema.pth` of the public trainer, or its mapping of tensors.
    heads   of every layer; no shape tells it, and the released models have 8.
    latent  (c, h, w) of z_0, needed only where it is not 4 channels of a square.
    dtype   of the weights; None keeps the file's.

    The other parts of the file are left alone. Raises ValueError naming every tensor of the text encoder that is
    missing, unexpected or of the wrong shape.
    """
    state = source if isinstance(source, Mapping) else read_public(source)
    config, ours = from_public(state, heads, latent)
    moved = {name: tensor.to(device=device, dtype=dtype, copy=True) for name, tensor in ours.items()}
    return filled(lambda: TextVE(config), moved, "the public text encoder")


def save_public_text_ve(model: TextVE, path: str | Path) -> None:
    """Write the text encoder as a public .pth file of `context_encoder.*` only; whole or not at all.

    Raises ValueError for a kind of encoder that the public layout does not have.
    """
    with replaced(Path(path)) as temporary:
        state = {name: tensor.to("cpu", copy=True) for name, tensor in to_public(model).items()}
        torch.save(state, temporary)


def from_public(
    state: State, heads: int = HEADS, latent: tuple[int, int, int] | None = None
) -> tuple[TextVEConfig, dict[str, Tensor]]:
    """(config, state dict of a TextVE) of a public state dict; the tensors are the same ones, not copies.

    `load_public_text_ve` explains heads, latent and errors.
    """
    found = split_public(state).get(TEXT_ENCODER, {})
    config = read_text_ve_config(found, heads, latent)
    with torch.device("meta"):
        body = TextVE(config).body.state_dict()
    expected = {f"{TEXT_ENCODER}.{name}": shape for name, shape in shapes(body).items()}
    require_match(shapes(found), expected, "the public text encoder")
    return config, {f"body.{name.removeprefix(f'{TEXT_ENCODER}.')}": found[name] for name in expected}


def to_public(model: TextVE) -> dict[str, Tensor]:
    """The tensors of a `released` text encoder under their public names; they are the model's own, not copies.

    Raises ValueError for another kind, and for one whose sigma is not learned.
    """
    kind, variation = model.config.kind, model.config.variation
    if (kind, variation) != ("released", "learned"):
        raise ValueError(
            "the public layout holds a `released` text encoder with a learned sigma, "
            f"got kind={kind!r}, variation={variation!r}; use save_pretrained"
        )
    return {f"{TEXT_ENCODER}.{name}": tensor for name, tensor in model.body.state_dict().items()}


def read_public(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .pth file by name, left on the disk until they are used. Only tensors are unpickled."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is not a file of plain tensors, and nothing else is unpickled") from error
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        held = ", ".join(map(str, loaded))[:80] if isinstance(loaded, Mapping) else type(loaded).__name__
        raise ValueError(f"{path} is not one flat mapping from names to tensors; it holds {held}")
    return dict(loaded)


def split_public(state: State) -> dict[str, dict[str, Tensor]]:
    """Part -> its tensors: `backbone`, `context_encoder`, `open_clip`, `open_clip_output`, those that are there.

    Names stay as in the file, but for a `module.` before them; ValueError for one that is there with it and without.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        plain = name.removeprefix("module.")
        first = plain.split(".")[0]
        part = parts.setdefault(first if first in PARTS else BACKBONE, {})
        if plain in part:
            raise ValueError(f"{plain!r} is there with and without 'module.' before it; keep one of them")
        part[plain] = tensor
    return parts


def read_text_ve_config(
    found: State, heads: int = HEADS, latent: tuple[int, int, int] | None = None
) -> TextVEConfig:
    """The config of the tensors `context_encoder.*`, from their names and shapes."""
    width, _ = _shape(found, "layers.0.attn.W_Q.weight")
    compressed = f"{TEXT_ENCODER}.compressor.fc1.weight" in found
    token_width = _shape(found, "compressor.fc1.weight")[1] if compressed else width
    bottleneck = width // 2 ** _count(found, "reduction_layers")
    large = f"{TEXT_ENCODER}.adaptor.fc1.weight" in found
    tail = "adaptor.fc1.weight" if large else "linear.weight"
    values, flat = _shape(found, tail)
    if flat % bottleneck:
        raise ValueError(f"{tail} reads {flat} values, which is no number of tokens {bottleneck} wide")
    if latent is None:
        latent = _adaptor_latent(found) if large else _square_latent(values // 2)
    return TextVEConfig(
        kind="released",
        token_width=token_width,
        max_tokens=flat // bottleneck,
        latent=latent,
        width=width,
        heads=heads,
        depth=_count(found, "layers"),
        bottleneck=bottleneck,
        dropout=DROPOUT,
    )


def _square_latent(size: int) -> tuple[int, int, int]:
    side = isqrt(size // CHANNELS)
    if CHANNELS * side * side != size:
        raise ValueError(f"{size} values are not {CHANNELS} channels of a square; pass latent=(c, h, w)")
    return CHANNELS, side, side


def _adaptor_latent(found: State) -> tuple[int, int, int]:
    return _shape(found, "adaptor.conv3.bias")[0] // 2, ADAPTOR_SIDE, ADAPTOR_SIDE


def _shape(found: State, name: str) -> tuple[int, ...]:
    name = f"{TEXT_ENCODER}.{name}"
    if name not in found:
        raise ValueError(
            f"{name!r} is missing, and the config is read from its shape; give a public CrossFlow file"
        )
    axes = 1 if name.endswith(".bias") else 2
    if found[name].ndim != axes:
        raise ValueError(f"{name!r} must have {axes} axes, got {tuple(found[name].shape)}")
    return tuple(found[name].shape)


def _count(found: State, name: str) -> int:
    matches = map(re.compile(rf"{TEXT_ENCODER}\.{name}\.(\d+)\.").match, found)
    return len({match[1] for match in matches if match})
