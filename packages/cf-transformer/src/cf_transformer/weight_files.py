"""Weights on disk and back: written whole or not at all, read in full or not at all."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)
Shapes = Mapping[str, tuple[int, ...]]
NAMED_AT_MOST = 8  # an error that lists two thousand tensors is not read


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; at the end of the block it takes the place of `path`, at once.

    When the block fails, `path` keeps what it had and the temporary file is removed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors makes files that only their owner reads
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def require_match(found: Shapes, expected: Shapes, source: str) -> None:
    """Raise ValueError naming the tensors of `source` that are missing, unexpected or of another shape."""
    wrong = [
        f"{name} is {found[name]}, expected {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    complaints = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of the wrong shape": wrong,
    }
    told = [f"{len(names)} {what}: {_some(names)}" for what, names in complaints.items() if names]
    if told:
        raise ValueError(f"{source} does not fit its config; " + "; ".join(told))


def filled(make: Callable[[], Model], state: Mapping[str, Tensor], source: str) -> Model:
    """The model that `make` builds, made of the tensors of `state` themselves, in their precision and device.

    It is built on the meta device, so nothing is drawn or held twice. Raises ValueError unless every tensor
    of the model is in `state` and every one of `state` in the model, with the same shape.
    """
    with torch.device("meta"):
        model = make()
    require_match(shapes(state), shapes(model.state_dict()), source)
    model.load_state_dict(state, assign=True)
    return model


def _some(names: list[str]) -> str:
    rest = len(names) - NAMED_AT_MOST
    return ", ".join(names[:NAMED_AT_MOST]) + (f" and {rest} more" if rest > 0 else "")
