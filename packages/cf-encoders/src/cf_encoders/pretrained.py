"""A trained encoder or decoder as a folder: model.safetensors and config.json, on this machine or on a hub."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor, nn

from cf_encoders.located import located
from cf_encoders.weight_files import filled, replaced

WEIGHTS, CONFIG = "model.safetensors", "config.json"
CLASS_KEY, VERSION_KEY = "model", "cf_encoders"

Model = TypeVar("Model", bound="Pretrained")


@runtime_checkable
class Config(Protocol):
    """What a model is made of; `from_dict` refuses keys that are not fields."""

    def to_dict(self) -> dict[str, Any]: ...

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config": ...


MODELS: dict[str, tuple[type[nn.Module], type[Config]]] = {}
"""Class name in config.json -> (model, config): every subclass of Pretrained that is imported."""


class Pretrained:
    """`class TextVE(Pretrained, nn.Module, config=TextVEConfig)`: a model that knows how to be stored and found again.

    Asked of the model: `Model(config)` builds it, `model.config` is what it was built from. A class derived from it
    has the same config class, unless it names its own.
    """

    config_class: type[Config]

    def __init_subclass__(cls, *, config: type[Config] | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if config is not None:
            cls.config_class = config
        MODELS[cls.__name__] = (cast("type[nn.Module]", cls), cls.config_class)

    def save_pretrained(self, folder: str | Path) -> None:
        """As the function `save_pretrained`."""
        save_pretrained(cast(nn.Module, self), folder)

    @classmethod
    def from_pretrained(
        cls: type[Model],
        name_or_folder: str | Path,
        *,
        revision: str | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> Model:
        """As the function `from_pretrained`; a folder that holds another kind of model is a TypeError."""
        model = from_pretrained(name_or_folder, revision=revision, device=device, dtype=dtype)
        if not isinstance(model, cls):
            kind = type(model).__name__
            raise TypeError(
                f"{name_or_folder} holds a {kind}, not a {cls.__name__}; use {kind}.from_pretrained"
            )
        return model


def save_pretrained(model: nn.Module, folder: str | Path) -> None:
    """Write weights, in their precision, and config into `folder`, which is made where there is none.

    Neither file is replaced before both are complete. Raises ValueError for a class that is not a `Pretrained` and
    for a model without values (on the meta device).
    """
    from safetensors.torch import save_file

    kind = type(model).__name__
    _known(kind)
    tensors = _storable(model.state_dict())
    config = {CLASS_KEY: kind, VERSION_KEY: version("cf-encoders"), **cast(Any, model).config.to_dict()}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with replaced(folder / WEIGHTS) as weights, replaced(folder / CONFIG) as text:
        save_file(tensors, weights, metadata={"format": "pt"})
        text.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def from_pretrained(
    name_or_folder: str | Path,
    *,
    revision: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """The model of a folder, or of a hub id such as "someone/text-ve" where no folder has that name; in eval mode.

    revision  branch, tag or commit on the hub.
    dtype     of the weights; None keeps the file's.

    No weight is drawn or held twice. Raises FileNotFoundError naming the file that is missing, ValueError naming
    every tensor or key that does not belong, ImportError where the hub is needed without huggingface_hub.
    """
    folder = located(name_or_folder, [CONFIG, WEIGHTS], revision)
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise FileNotFoundError(
                f"{folder} has no {file}; write the folder with save_pretrained(model, folder)"
            )
    model_class, config = _read_config(folder / CONFIG)
    state = _read_weights(folder / WEIGHTS, device, dtype)
    return filled(lambda: model_class(config), state, str(folder / WEIGHTS))


def _read_config(path: Path) -> tuple[type[nn.Module], Config]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict) or CLASS_KEY not in values:
        raise ValueError(f"{path} lacks {CLASS_KEY!r}, the kind of model; known: {', '.join(MODELS)}")
    model_class, config_class = _known(values.pop(CLASS_KEY))
    values.pop(VERSION_KEY, None)
    try:
        return model_class, config_class.from_dict(values)
    except TypeError as error:  # a field without a default is not there
        raise ValueError(f"{path}: {error}") from error


def _read_weights(path: Path, device: torch.device | str, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Copies, one by one: what safetensors hands out is a window into the file."""
    from safetensors import SafetensorError, safe_open

    state = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(name)
                wanted = dtype if tensor.is_floating_point() else None
                state[name] = tensor.to(device=device, dtype=wanted, copy=True)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged, fetch or write it again: {error}") from error
    return state


def _known(kind: str) -> tuple[type[nn.Module], type[Config]]:
    if kind not in MODELS:
        raise ValueError(f"unknown model {kind!r}; known: {', '.join(MODELS)}")
    return MODELS[kind]


def _storable(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors on the CPU, no two of them in the same memory: what safetensors takes."""
    tensors: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in state.items():
        if tensor.is_meta:
            raise ValueError(f"{name} is on the meta device and has no value; load or initialise it first")
        tensor = tensor.to("cpu").contiguous()
        memory = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if memory in taken else tensor
        taken.add(memory)
    return tensors
