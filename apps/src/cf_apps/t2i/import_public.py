"""`crossflow t2i import`: a run folder from a public CrossFlow checkpoint, to draw with.

The velocity network and the text encoder go into the run, tensor by tensor; the contrastive image tower, which only
trains the encoder, stays behind. The frozen language model and the autoencoder are not in the file: the run remembers
where they are.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from cf_encoders.public_weights import TEXT_ENCODER
from cf_encoders.public_weights import from_public as text_ve_from_public
from cf_transformer import DiMRConfig, read_public, split_public
from cf_transformer.public_dit import from_public_dit
from cf_transformer.public_files import BACKBONE
from cf_transformer.public_weights import from_public as dimr_from_public
from torch import Tensor

from cf_apps.engine.codecs import CodecConfig
from cf_apps.engine.errors import ConfigError, RunError
from cf_apps.engine.files import replaced
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.run import open_run, read_config
from cf_apps.engine.saving.checkpoint import check_room
from cf_apps.engine.saving.export import MODEL
from cf_apps.engine.watching.progress import Progress, Silence
from cf_apps.t2i.config import LanguageConfig, T2IConfig
from cf_apps.t2i.presets import t2i_preset

OURS = {BACKBONE: "backbone", TEXT_ENCODER: "text_ve"}  # part of the file -> module of the run
DIT = "x_embedder.proj.weight"  # a DiT has it, a DiMR does not
PIXELS_A_CELL = 8  # of the autoencoder the released models were trained with, cf-encoders' `released-vae`
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
State = dict[str, Tensor]


@dataclass(frozen=True)
class ImportRequest:
    """What the command line asks for. language_model: `clip` or `t5-released`; None takes it from the file."""

    checkpoint: Path
    out: Path
    language: str | None = None
    codec: str | None = None
    language_model: str | None = None
    fp16: bool = False


@dataclass(frozen=True)
class Imported:
    """The run that was made, and how many tensors and parameters each part of the file has."""

    run: Path
    config: T2IConfig
    parts: dict[str, dict[str, int]]

    def table(self) -> dict[str, dict[str, str]]:
        """For `print_table`: a row for each part, and where it went."""
        columns = {
            name: {part: f"{counts[name]:,}" for part, counts in self.parts.items()}
            for name in ("tensors", "parameters")
        }
        goes = {part: OURS.get(part, "left out: drawing needs no tower") for part in self.parts}
        return columns | {"goes into the run as": goes}


def import_public(request: ImportRequest, line: Progress | None = None) -> Imported:
    """Write request.out: model.safetensors, and config.json as `crossflow t2i train` writes it.

    Nothing is written before every tensor of both parts is known to fit (ConfigError names those that do not).
    Raises RunError for a folder that holds something else, and where the weights cannot be written.
    """
    with line or Silence() as line:
        _require_free(request.out)
        line.show(0.0, f"reading {request.checkpoint.name}")
        parts = _read(request.checkpoint)
        config, tensors = converted(request, parts)
        line.show(0.3, "fits; copying the weights")
        tensors = _stored(tensors, torch.float16 if request.fp16 else None)
        size = sum(tensor.nbytes for tensor in tensors.values())
        line.show(0.6, f"writing {size / 2**30:.2f} GiB")
        counted = {part: _counted(state) for part, state in parts.items()}
        _write(request, config, tensors, counted)
        line.show(1.0, f"wrote {request.out}")
    return Imported(request.out, config, counted)


def _require_free(run: Path) -> None:
    """Only an earlier import may be written over."""
    if not run.exists() or (run.is_dir() and not any(run.iterdir())):
        return
    if not (run / "config.json").exists() or "imported" not in read_config(run):
        raise RunError(f"{run} holds something else than an earlier import; choose another folder")


def _read(checkpoint: Path) -> dict[str, State]:
    """The parts of the file; their tensors stay on the disk until they are used."""
    if not checkpoint.is_file():
        raise ConfigError(f"there is no file {checkpoint}; give a public CrossFlow checkpoint (.pth)")
    try:
        return split_public(read_public(checkpoint))
    except (ValueError, RuntimeError, EOFError, OSError) as error:  # torch has its own for a file cut short
        raise ConfigError(f"{checkpoint} cannot be read as a public checkpoint: {error}") from error


def converted(request: ImportRequest, parts: Mapping[str, State]) -> tuple[T2IConfig, State]:
    """The run's config and its tensors, those of the file or copies of them."""
    backbone, text_ve = (parts.get(part, {}) for part in OURS)
    try:
        network, weights = from_public_dit(backbone) if DIT in backbone else dimr_from_public(backbone)
        encoder, encoder_weights = text_ve_from_public(text_ve, latent=(network.channels, *network.size))
    except ValueError as error:
        raise ConfigError(f"{request.checkpoint}: {error}") from error
    compressed = encoder.token_width != encoder.width  # T5's tokens are narrowed first, CLIP's are not
    config = T2IConfig(
        image_size=PIXELS_A_CELL * network.size[0],
        language=LanguageConfig(
            request.language_model or ("t5-released" if compressed else "clip"),
            width=encoder.token_width,
            max_tokens=encoder.max_tokens,
            path=_located("--language", request.language),
        ),
        codec=CodecConfig("released-vae", path=_located("--codec", request.codec)),
        text_ve=encoder,
        backbone=network,
        image_tower=None,
        loss=t2i_preset("released-256").model.loss,  # what it was trained with, for the record
        sample=SampleConfig(scale=7.0, steps=50, solver="euler"),
    )
    tensors = {f"backbone.{name}": tensor for name, tensor in weights.items()}
    return config, tensors | {f"text_ve.{name}": tensor for name, tensor in encoder_weights.items()}


def _located(option: str, path: str | None) -> str | None:
    """Absolute, so that the run may be used from any folder; a hub id stays as it is."""
    if path is None:
        return None
    if Path(path).exists():
        return str(Path(path).resolve())
    if not HUB_ID.fullmatch(path):
        raise ConfigError(
            f"{option} {path!r} is no file, no folder and no hub id (owner/name); check the path"
        )
    return path


def _stored(tensors: State, dtype: torch.dtype | None) -> State:
    """Each in memory of its own, off the file, and in `dtype`; None keeps the file's.

    Takes them out of `tensors` one by one: a billion parameters are not held twice.
    """
    stored = {}
    for name in list(tensors):
        stored[name] = tensors.pop(name).to(dtype=dtype, copy=True).contiguous()
        if dtype is not None and not stored[name].isfinite().all():
            raise ConfigError(f"{name} has values that {dtype} cannot hold; import without --fp16")
    return stored


def _counted(state: State) -> dict[str, int]:
    return {"tensors": len(state), "parameters": sum(tensor.numel() for tensor in state.values())}


def _write(
    request: ImportRequest, config: T2IConfig, tensors: State, counted: dict[str, dict[str, int]]
) -> None:
    """Weights and config, the weights in place last; an earlier import survives a write that fails."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    imported = {"checkpoint": str(request.checkpoint.resolve()), "parts": counted}
    task = {"config": config.to_dict(), "vocabulary": None, "data": None}
    record: dict[str, Any] = {"task": task, "fit": {"precision": "fp32"}, "imported": imported}
    try:
        request.out.mkdir(parents=True, exist_ok=True)
        check_room(request.out, sum(tensor.nbytes for tensor in tensors.values()))
        with replaced(request.out / MODEL) as temporary:
            save_file(tensors, temporary, metadata={"step": "0"})
            open_run(request.out, record, resume=False)
    except (OSError, SafetensorError) as error:
        raise RunError(f"cannot write {request.out}: {error}; make room and import again") from error


def kind_of(config: T2IConfig) -> str:
    """`DiMR for 256 px with clip text`."""
    network = "DiMR" if isinstance(config.backbone, DiMRConfig) else "DiT"
    return f"{network} for {config.image_size} px with {config.language.name} text"


def missing(config: T2IConfig) -> list[str]:
    """What the run still needs before it can draw, one sentence each."""
    wanted = {
        "--language": (config.language.path, f"the weights of its language model ({config.language.name})"),
        "--codec": (config.codec.path, "the weights of its autoencoder"),
    }
    return [
        f"to draw, it needs {what}: import again with {option} PATH"
        for option, (path, what) in wanted.items()
        if path is None
    ]
