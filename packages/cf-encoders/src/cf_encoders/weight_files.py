"""Weights on disk and back: a file is replaced whole or not at all, a model is filled in full or not at all."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)
Shapes = Mapping[str, tuple[int, ...]]
NAMED_AT_MOST = 8  # nobody reads an error of two hundred names


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which takes its place when the block ends without an error.

    An error in the block leaves `path` as it was and removes the temporary file.
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
    """The shape of every tensor by name."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def require_match(found: Shapes, expected: Shapes, source: str) -> None:
    """Raise ValueError naming the tensors of `source` that are missing, unexpected or of another shape."""
    told = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of the wrong shape": [
            f"{name} is {found[name]}, expected {shape}"
            for name, shape in expected.items()
            if name in found and found[name] != shape
        ],
    }
    wrong = [f"{len(names)} {what}: {_some(names)}" for what, names in told.items() if names]
    if wrong:
        raise ValueError(f"{source} does not fit its config; " + "; ".join(wrong))


def filled(make: Callable[[], Model], state: Mapping[str, Tensor], source: str) -> Model:
    """The model that `make` builds, in eval mode, made of the tensors of `state` themselves.

    It is built on the meta device, so no weight is drawn or held twice. What a model computes for itself and does
    not store (a table of positions) has no value there: such a model is built once more, torch's generator left
    as it was. Raises ValueError unless `state` and the model have the same names and shapes.
    """
    with torch.device("meta"):
        model = make()
    expected = model.state_dict()
    require_match(shapes(state), shapes(expected), source)
    if any(name not in expected for name, _ in model.named_buffers()):
        like = next(tensor for tensor in state.values() if tensor.is_floating_point())
        with torch.random.fork_rng(devices=[]):
            model = make().to(like.device, like.dtype)
    model.load_state_dict(state, assign=True)
    return model.eval()


def _some(names: list[str]) -> str:
    rest = len(names) - NAMED_AT_MOST
    return ", ".join(names[:NAMED_AT_MOST]) + (f" and {rest} more" if rest > 0 else "")
