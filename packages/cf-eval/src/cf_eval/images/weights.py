"""Weight files: checked before they are believed, and hashed so that a result can name them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor


@dataclass(frozen=True)
class WeightFile:
    """What is known of a published file. sha256 may be a prefix; least_bytes is what its parameters alone take."""

    name: str
    sha256: str
    least_bytes: int


def load_weights(path: str | Path, expected: WeightFile) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file and its full sha256, read only after size and hash are right.

    Raises FileNotFoundError, and ValueError for a truncated or another file, or one that holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; give the path of {expected.name}")
    size = path.stat().st_size
    if size < expected.least_bytes:
        raise ValueError(
            f"{path} has {size:,} bytes, {expected.name} at least {expected.least_bytes:,}: "
            "the copy is truncated; copy it again"
        )
    sha256 = file_sha256(path)
    if not sha256.startswith(expected.sha256):
        raise ValueError(
            f"{path} has sha256 {sha256[:16]}..., {expected.name} has {expected.sha256}...: "
            "another or a damaged file; copy it again"
        )
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict: a mapping of names to tensors was expected")
    return dict(state), sha256


def file_sha256(path: str | Path) -> str:
    """In hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Of names, types, shapes and values, whatever file and order they came in."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
