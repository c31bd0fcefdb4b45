"""Public checkpoint files, and what their tensors are called here: the part that DiMR and DiT share.

A file is one flat mapping from names to tensors that holds the velocity network beside the text encoder and the
contrastive image tower. Each of our tensors is one public tensor, or several of the same shape stacked: w0 and w1
of a gated MLP, the gains of all norms of a stage. So one table of rows tells both ways.
"""

import logging
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from cf_transformer.weight_files import Shapes, filled, replaced

BACKBONE = "backbone"
SIBLINGS = ("context_encoder", "open_clip", "open_clip_output")  # these belong to cf-encoders
State = Mapping[str, Tensor]
Config = TypeVar("Config")
Model = TypeVar("Model", bound=nn.Module)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One tensor of ours and the public ones, each of `shape`, that it holds in this order."""

    ours: str
    public: tuple[str, ...]
    shape: tuple[int, ...]


def layer(ours: str, public: Sequence[str], out: int, *inputs: int) -> Iterator[Row]:
    """Weight and bias; several public layers one after the other."""
    yield Row(f"{ours}.weight", tuple(f"{name}.weight" for name in public), (out, *inputs))
    yield Row(f"{ours}.bias", tuple(f"{name}.bias" for name in public), (out,))


def gathered(rows: Iterable[Row], public: State, ours: Shapes) -> dict[str, Tensor]:
    """Our tensors, of the shapes `ours`, copied from the public ones."""
    stacks = ((row.ours, torch.stack([public[name] for name in row.public])) for row in rows)
    return {name: stack.reshape(ours[name]) for name, stack in stacks}


def spread(rows: Iterable[Row], state: State) -> dict[str, Tensor]:
    """The public tensors, views of ours: the inverse of `gathered`."""
    views = (zip(row.public, state[row.ours].reshape(-1, *row.shape), strict=True) for row in rows)
    return {name: tensor for pairs in views for name, tensor in pairs}


def read_public(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .pth file by name, still on the disk until they are used. Nothing else is unpickled."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is not a file of plain tensors, and nothing else is unpickled") from error
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        keys = ", ".join(map(str, loaded))[:80] if isinstance(loaded, Mapping) else type(loaded).__name__
        raise ValueError(f"{path} is not one flat mapping from names to tensors; it holds {keys}")
    return dict(loaded)


def split_public(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Part -> its tensors: `backbone`, and those for cf-encoders, which start with the part's name.

    Names are the file's, but for a `module.` before them. Raises ValueError for one that is there twice then.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        plain = name.removeprefix("module.")
        first = plain.split(".")[0]
        part = parts.setdefault(first if first in SIBLINGS else BACKBONE, {})
        if plain in part:
            raise ValueError(f"{plain!r} is there with and without 'module.' before it; keep one of them")
        part[plain] = tensor
    return parts


def load_backbone(
    path: str | Path,
    convert: Callable[[State], tuple[Config, dict[str, Tensor]]],
    make: Callable[[Config], Model],
    dtype: torch.dtype | None,
    device: torch.device | str,
) -> Model:
    """The model that `make` builds of what `convert` reads from a file; other parts are logged with their counts."""
    state = read_public(path)
    config, ours = convert(state)
    for part, tensors in split_public(state).items():
        log.info(
            "%s: %d tensors of %s, %s", path, len(tensors), part, "read" if part == BACKBONE else "left out"
        )
    ours = {name: tensor.to(device=device, dtype=dtype) for name, tensor in ours.items()}
    return filled(lambda: make(config), ours, str(path))


def write_public(state: State, path: str | Path) -> None:
    """Write public tensors as a .pth file; an old file survives a failed write."""
    with replaced(Path(path)) as temporary:
        torch.save({name: tensor.to("cpu", copy=True) for name, tensor in state.items()}, temporary)


def count(pattern: str, names: Iterable[str]) -> int:
    """Of how many different values the group of `pattern` is found at the start of the names."""
    return len({match[1] for match in map(re.compile(pattern).match, names) if match})


def shape_of(state: Mapping[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    """The shape of a tensor that the config is read from; ValueError where it is not there or has other axes."""
    if name not in state:
        raise ValueError(f"{name!r} is missing; the config is read from its shape")
    if state[name].ndim != axes:
        raise ValueError(f"{name!r} must have {axes} axes, got {tuple(state[name].shape)}")
    return tuple(state[name].shape)


def square_size(cells: int, patch: int) -> tuple[int, int]:
    """(height, width) of a latent whose `cells` are a square grid; ValueError where they are none."""
    side = isqrt(cells)
    if side * side != cells:
        raise ValueError(f"{cells} cells are not a square grid; pass size=(height, width)")
    return side * patch, side * patch
