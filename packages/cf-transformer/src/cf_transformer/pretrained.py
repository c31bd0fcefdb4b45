"""A model as a folder: model.safetensors and config.json, on this machine or on a hub."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor, nn

from cf_transformer.weight_files import filled, replaced

WEIGHTS, CONFIG = "model.safetensors", "config.json"
CLASS_KEY, VERSION_KEY = "model", "cf_transformer"

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
    """The two functions of this file as methods of a model: `class DiMR(Pretrained, nn.Module, config=DiMRConfig)`.

    A model derived from another has its config, unless it names its own.
    """

    config_class: type[Config]

    def __init_subclass__(cls, *, config: type[Config] | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if config is not None:
            cls.config_class = config
        MODELS[cls.__name__] = (cast("type[nn.Module]", cls), cls.config_class)

    def save_pretrained(self, folder: str | Path) -> None:
        """As `save_pretrained`."""
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
        """As `from_pretrained`; a folder that holds another kind of model raises TypeError."""
        model = from_pretrained(name_or_folder, revision=revision, device=device, dtype=dtype)
        if not isinstance(model, cls):
            kind = type(model).__name__
            raise TypeError(
                f"{name_or_folder} holds a {kind}, not a {cls.__name__}; use {kind}.from_pretrained"
            )
        return model


def save_pretrained(model: nn.Module, folder: str | Path) -> None:
    """Write the weights, in their precision, and the config; the folder is made if need be.

    Both files are complete before either takes its place, so older ones survive a failed write. Raises
    ValueError for a model of an unknown class or without values (on the meta device).
    """
    from safetensors.torch import save_file

    kind = type(model).__name__
    _lookup(kind)
    tensors = _storable(model.state_dict())
    config = {CLASS_KEY: kind, VERSION_KEY: version("cf-transformer"), **cast(Any, model).config.to_dict()}
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
    """The model of a folder, or of a hub id such as "someone/dimr-70m" where no folder has that name.

    revision  branch, tag or commit on the hub.
    dtype     of the weights; None keeps the file's.

    The model is never drawn and its weights are held once. Raises FileNotFoundError naming the file that is
    missing, ValueError naming every tensor or key that does not belong, ImportError where the hub is needed and
    huggingface_hub is not installed.
    """
    from safetensors import SafetensorError, safe_open

    folder = _locate(name_or_folder, revision)
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise FileNotFoundError(
                f"{folder} has no {file}; write the folder with save_pretrained(model, folder)"
            )
    model_class, config = _read_config(folder / CONFIG)
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            # copied, one by one: what safe_open returns is a window into the file
            state = {name: _moved(file.get_tensor(name), device, dtype) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS} is damaged, fetch or write it again: {error}") from error
    return filled(lambda: model_class(config), state, str(folder / WEIGHTS))


def _read_config(path: Path) -> tuple[type[nn.Module], Config]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    values.pop(VERSION_KEY, None)
    if CLASS_KEY not in values:
        raise ValueError(f"{path} lacks {CLASS_KEY!r}, the kind of model; known: {', '.join(MODELS)}")
    model_class, config_class = _lookup(values.pop(CLASS_KEY))
    return model_class, config_class.from_dict(values)


def _lookup(kind: str) -> tuple[type[nn.Module], type[Config]]:
    if kind not in MODELS:
        raise ValueError(f"unknown model {kind!r}; known: {', '.join(MODELS)}")
    return MODELS[kind]


def _locate(name_or_folder: str | Path, revision: str | None) -> Path:
    """The local folder, downloaded first where it is a hub id."""
    folder = Path(name_or_folder)
    if folder.is_dir():
        if revision is not None:
            raise ValueError(f"{folder} is a local folder and has no revision {revision!r}; leave it out")
        return folder
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ImportError(
            f"there is no folder {str(name_or_folder)!r}, and to look for it on a hub huggingface_hub is needed: "
            "pip install cf-transformer[hub]"
        ) from error
    try:
        found = snapshot_download(str(name_or_folder), revision=revision, allow_patterns=[CONFIG, WEIGHTS])
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"there is no folder {str(name_or_folder)!r}, and the hub did not give it: {error}"
        ) from error
    return Path(found)


def _storable(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors on the CPU, no two of them in the same memory: what safetensors takes."""
    tensors: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in state.items():
        if tensor.is_meta:
            raise ValueError(
                f"{name} is on the meta device and has no value; load or initialise the model first"
            )
        tensor = tensor.to("cpu").contiguous()
        memory = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if memory in taken else tensor
        taken.add(memory)
    return tensors


def _moved(tensor: Tensor, device: torch.device | str, dtype: torch.dtype | None) -> Tensor:
    return tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None, copy=True)
