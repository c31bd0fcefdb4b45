"""Checkpoints that are complete or not there, written by one process or by many.

    RUN/checkpoints/step-00001000/   weights.safetensors  ema.safetensors  optimizer.safetensors
                                     state.json           complete.json

A checkpoint is written into a temporary folder beside its place. `complete.json`, written last and by rank 0, holds
each file's size and SHA-256; everything is synced to the disk and only then is the folder renamed. A kill, a power
cut or a full disk at any moment leaves the checkpoints from before, and at most a temporary folder, which the
next start removes. What several processes write, any other number of them can read.
"""

import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cf_apps.engine.errors import CheckpointError, RunError
from cf_apps.engine.files import fingerprint
from cf_apps.engine.ranks.world import ALONE, World
from cf_apps.engine.saving.layout import MARKER, STATE, Parts


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


def save_checkpoint(
    run: Path,
    step: int,
    parts: Parts,
    state: Mapping[str, Any],
    keep_last: int = 2,
    keep_every: int | None = None,
    world: World = ALONE,
) -> Path:
    """Write a checkpoint and, once it is complete, remove those that are not to be kept, see `kept`. Collective.

    parts: file name -> tensors by name: DTensors, of which each rank writes what it holds, and plain tensors, equal
        wherever they are, which one rank writes. A rank may leave out plain ones that another has.
    state: the rest, as JSON; rank 0's counts.
    Raises RunError on every rank when one of them cannot write (disk full, no permission); the checkpoints from
    before are kept.
    """
    from cf_apps.engine.saving.storage import (  # what PyTorch needs for this takes seconds to import
        temporary,
        write,
    )

    folder = checkpoint_folder(run, step)
    there = (folder / MARKER).exists()
    if not world.from_main(there):  # the end of a run that was resumed at its end is there already
        try:
            write(folder, parts, state, world)
        except OSError as error:
            if world.main:
                shutil.rmtree(temporary(folder), ignore_errors=True)
            last = max(checkpoints(run), default=None)
            raise RunError(
                f"cannot save {folder}: {error.strerror or error}; "
                + (f"step {last} is kept, " if last is not None else "")
                + "make room (or lower keep_last) and resume"
            ) from error
    if world.main:
        _remove_old(run, keep_last, keep_every)
    return folder


def kept(steps: Collection[int], keep_last: int, keep_every: int | None) -> set[int]:
    """Which checkpoints stay: the last ones, and the first at or after each multiple of `keep_every`."""
    ordered = sorted(steps)
    milestones: dict[int, int] = {}
    if keep_every is not None:
        for step in ordered:
            milestones.setdefault(step // keep_every, step)
        milestones.pop(0, None)
    return {*ordered[-keep_last:], *milestones.values()}


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint, every file of which was found whole.

    tensors: torch.distributed.checkpoint's Metadata of each PART.NAME. state: what was saved as JSON.
    """

    folder: Path
    tensors: Any  # importing the class takes seconds
    state: dict[str, Any]

    def shapes(self, part: str) -> dict[str, tuple[int, ...]]:
        """Shapes of a part's tensors by name."""
        whole = self.tensors.state_dict_metadata
        return {
            name.removeprefix(f"{part}."): tuple(tensor.size)
            for name, tensor in whole.items()
            if name.startswith(f"{part}.")
        }

    def dtype(self, part: str, name: str) -> torch.dtype:
        return self.tensors.state_dict_metadata[f"{part}.{name}"].properties.dtype

    def read(self, into: Parts, world: World = ALONE) -> None:
        """Fill tensors in place, whole ones or shards; dtype and device stay theirs. Collective.

        They must have the shapes of the saved ones.
        """
        from cf_apps.engine.saving.storage import read

        read(self.tensors, into, world)


def open_checkpoint(folder: Path, world: World = ALONE, parts: Collection[str] | None = None) -> Checkpoint:
    """A checkpoint to read from, after every file's size and SHA-256 have been checked. Collective.

    parts: those that will be read; None for all. Files are checked once, by one rank or another.
    Raises CheckpointError, on every rank, naming the file that is missing or damaged.
    """
    from cf_apps.engine.saving.storage import SUFFIX, describe, part_of

    try:
        files = sorted(json.loads((folder / MARKER).read_text()).items())
        wanted = [(n, f) for n, f in files if n == STATE or parts is None or part_of(n) in parts]
        problem = _damage(folder, dict(wanted[world.rank :: world.size]))
    except (OSError, ValueError) as error:
        wanted, problem = [], f"{folder} is not a complete checkpoint ({MARKER}: {error}); use another"
    if problems := [found for found in world.everyone(problem) if found]:
        raise CheckpointError(problems[0])
    tensors = describe(folder / name for name, _ in wanted if name.endswith(SUFFIX))
    return Checkpoint(folder, tensors, json.loads((folder / STATE).read_text()))


def load_checkpoint(
    folder: Path, device: str = "cpu", parts: Collection[str] | None = None
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """(parts, state) as they were saved, whole, whatever number of processes wrote them: for one process.

    Raises CheckpointError naming the file that is missing or damaged.
    """
    saved = open_checkpoint(folder, parts=parts)
    whole: dict[str, dict[str, Tensor]] = {}
    for key, tensor in saved.tensors.state_dict_metadata.items():
        part, _, name = key.partition(".")
        empty = torch.empty(tensor.size, dtype=tensor.properties.dtype, device=device)
        whole.setdefault(part, {})[name] = empty
    saved.read(whole)
    return whole, saved.state


def remove_leftovers(run: Path) -> None:
    """Remove what a killed save or removal left behind: temporary folders and incomplete checkpoints."""
    for folder in run.glob("checkpoints/.step-*.tmp"):
        shutil.rmtree(folder)
    for folder in run.glob("checkpoints/step-*"):
        if not (folder / MARKER).exists():
            shutil.rmtree(folder)


def _damage(folder: Path, files: Mapping[str, Any]) -> str | None:
    """What is wrong with these files, in one line; None where they are as they were written."""
    for name, expected in files.items():
        if not (folder / name).is_file() or fingerprint(folder / name) != expected:
            return (
                f"{folder / name} is damaged (missing, cut short or changed); "
                f"remove the folder {folder} to go on from an earlier checkpoint"
            )
    return None


def _remove_old(run: Path, keep_last: int, keep_every: int | None) -> None:
    found = checkpoints(run)
    stay = kept(found, keep_last, keep_every)
    for step, folder in found.items():
        if step in stay:
            continue
        try:
            (folder / MARKER).unlink()  # first: from here on it does not count as a checkpoint
            shutil.rmtree(folder)
        except OSError as error:
            raise RunError(
                f"cannot remove the old checkpoint {folder}: {error.strerror or error}; remove it and resume"
            ) from error
