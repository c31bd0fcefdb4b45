"""Checkpoints that are complete or not there.

    RUN/checkpoints/step-00001000/   weights.safetensors  ema.safetensors  optimizer.safetensors
                                     state.json           complete.json

A checkpoint is written into a temporary folder beside its place. `complete.json`, written last, holds each
file's size and SHA-256; everything is synced to the disk and only then is the folder renamed. A kill, a power
cut or a full disk at any moment leaves the checkpoints from before, and at most a temporary folder, which the
next start removes.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cf_apps.engine.errors import CheckpointError, RunError
from cf_apps.engine.files import sync

MARKER = "complete.json"
Parts = Mapping[str, Mapping[str, Tensor]]


def checkpoint_folder(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def checkpoints(run: Path) -> dict[int, Path]:
    """The complete checkpoints of a run by step, oldest first."""
    folders = [marker.parent for marker in run.glob(f"checkpoints/step-*/{MARKER}")]
    found = {folder.name.removeprefix("step-"): folder for folder in folders}
    return dict(sorted((int(step), folder) for step, folder in found.items() if step.isdigit()))


def check_room(run: Path, size: int) -> None:
    """Raise RunError when the disk of `run` has no room for a checkpoint of `size` bytes: before training."""
    free = shutil.disk_usage(run).free
    if free < size:
        raise RunError(
            f"a checkpoint takes {size / 2**20:,.0f} MiB and {run} has {free / 2**20:,.0f} MiB of disk left; "
            "make room or choose another folder"
        )


def save_checkpoint(run: Path, step: int, parts: Parts, state: dict[str, Any], keep_last: int = 2) -> Path:
    """Write a checkpoint and, once it is complete, remove all but the last `keep_last`.

    parts: file name -> tensors by name. state: the rest, as JSON.
    Raises RunError when it cannot be written (disk full, no permission); the previous one is kept.
    """
    folder = checkpoint_folder(run, step)
    if not (folder / MARKER).exists():  # the end of a run that was resumed at its end is there already
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        try:
            _write(temporary, parts, state)
            os.replace(temporary, folder)
            sync(folder.parent)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            kept = max(checkpoints(run), default=None)
            raise RunError(
                f"cannot save {folder}: {error.strerror or error}; "
                + (f"step {kept} is kept, " if kept is not None else "")
                + "make room (or lower keep_last) and resume"
            ) from error
    for old in list(checkpoints(run).values())[:-keep_last]:
        _remove(old)
    return folder


def load_checkpoint(folder: Path, device: str = "cpu") -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """(parts, state) as they were saved, after every file's size and SHA-256 have been checked.

    Raises CheckpointError naming the file that is missing or damaged.
    """
    from safetensors.torch import load_file

    try:
        files = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder} is not a complete checkpoint ({MARKER}: {error}); use another"
        ) from error
    for name, expected in files.items():
        if not (folder / name).is_file() or _fingerprint(folder / name) != expected:
            raise CheckpointError(
                f"{folder / name} is damaged (missing, cut short or changed); "
                f"remove the folder {folder} to go on from an earlier checkpoint"
            )
    parts = {
        Path(name).stem: load_file(folder / name, device) for name in files if name.endswith(".safetensors")
    }
    return parts, json.loads((folder / "state.json").read_text())


def remove_leftovers(run: Path) -> None:
    """Remove what a killed save or removal left behind: temporary folders and incomplete checkpoints."""
    for folder in run.glob("checkpoints/.step-*.tmp"):
        shutil.rmtree(folder)
    for folder in run.glob("checkpoints/step-*"):
        if not (folder / MARKER).exists():
            shutil.rmtree(folder)


def _write(folder: Path, parts: Parts, state: dict[str, Any]) -> None:
    """Fill `folder` with all files and the marker, on the disk when this returns. Raises OSError."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    try:
        for name, tensors in parts.items():
            save_file(
                {key: tensor.contiguous() for key, tensor in tensors.items()}, folder / f"{name}.safetensors"
            )
    except SafetensorError as error:  # wraps the system's error and keeps only its text
        raise OSError(str(error)) from error
    (folder / "state.json").write_text(json.dumps(state, indent=1))
    files = sorted(path for path in folder.iterdir())
    for path in files:
        sync(path)
    (folder / MARKER).write_text(json.dumps({path.name: _fingerprint(path) for path in files}, indent=1))
    sync(folder / MARKER)
    sync(folder)


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _remove(folder: Path) -> None:
    (folder / MARKER).unlink()  # first: from here on it does not count as a checkpoint
    shutil.rmtree(folder)
