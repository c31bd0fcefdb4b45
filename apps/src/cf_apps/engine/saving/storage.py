"""How torch.distributed.checkpoint lays tensors on the disk here: safetensors files, nothing pickled, no index.

    weights.safetensors                                          one process: the file anyone would write
    weights-00001-of-00002.safetensors  weights-00002-of-...     two: each holds what its process was given to write

PyTorch plans who writes what and who reads which slice. A tensor is called PART.NAME and goes into the file PART; a
piece of a larger tensor says in its file's header to which tensor it belongs, and where.
"""

import json
import os
import shutil
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    SavePlanner,
    WriteItem,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from cf_apps.engine.files import fingerprint, sync
from cf_apps.engine.ranks.world import World
from cf_apps.engine.saving.layout import MARKER, STATE, Parts

SUFFIX = ".safetensors"
PIECES = "pieces"  # the header's entry: key -> {"of": name, "offset": [...], "shape": [...] of the whole}


def write(folder: Path, parts: Parts, numbers: Mapping[str, Any], world: World) -> None:
    """Write `folder`, which is complete or not there, from what all ranks hold. Collective.

    Raises OSError on every rank when one of them cannot write; a temporary folder may be left beside `folder`.
    """
    with _without_wrapping():
        _announce_nothing()
        save(
            _nested(parts),
            storage_writer=Writer(folder, numbers, world),
            planner=DefaultSavePlanner(flatten_sharded_tensors=False),
            **_processes(world),
        )


def read(metadata: Metadata, into: Parts, world: World) -> None:
    """Fill tensors in place, whole ones or this rank's shards; dtype and device stay theirs. Collective."""
    with _without_wrapping():
        _announce_nothing()
        load(
            _nested(into),
            storage_reader=Reader(metadata),
            planner=DefaultLoadPlanner(flatten_sharded_tensors=False),
            **_processes(world),
        )


def temporary(folder: Path) -> Path:
    """Where a checkpoint is written before it takes its place."""
    return folder.with_name(f".{folder.name}.tmp")


def part_of(file: str) -> str:
    """'weights' of weights.safetensors and of weights-00001-of-00002.safetensors."""
    return file.removesuffix(SUFFIX).split("-")[0]


def describe(files: Iterable[Path]) -> Metadata:
    """What tensors the files hold, by PART.NAME: dtype, shape, and which piece lies where."""
    found: dict[str, TensorStorageMetadata] = {}
    places: dict[MetadataIndex, tuple[Path, str]] = {}
    for path in files:
        with safe_open(path, framework="pt") as file:
            pieces = json.loads((file.metadata() or {}).get(PIECES, "{}"))
            for key in file.keys():  # noqa: SIM118
                slice_ = file.get_slice(key)
                size = torch.Size(slice_.get_shape())
                piece = pieces.get(key, {"of": key, "offset": [0] * len(size), "shape": size})
                name = f"{part_of(path.name)}.{piece['of']}"
                dtype = slice_[0:0].dtype if len(size) else slice_[()].dtype
                whole = TensorStorageMetadata(TensorProperties(dtype), torch.Size(piece["shape"]), [])
                offset = torch.Size(piece["offset"])
                found.setdefault(name, whole).chunks.append(ChunkStorageMetadata(offset, size))
                places[MetadataIndex(name, offset)] = (path, key)
    return Metadata(dict(found), storage_data=places)


class Writer(StorageWriter):
    """Writes beside `folder`, each rank its files; rank 0 adds state.json and the marker and renames."""

    def __init__(self, folder: Path, numbers: Mapping[str, Any], world: World) -> None:
        self._folder, self._numbers = folder, numbers
        self._temporary, self._world = temporary(folder), world

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        del checkpoint_id

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        if is_coordinator:  # before the plans are exchanged, so before anybody writes
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary.mkdir(parents=True)

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> "Future[list[WriteResult]]":
        tensors: dict[str, dict[str, Tensor]] = defaultdict(dict)
        pieces: dict[str, dict[str, Any]] = defaultdict(dict)
        for item in plan.items:
            part, _, name = item.index.fqn.partition(".")
            key, piece = _piece(item, name)
            data = planner.resolve_data(item)
            assert isinstance(data, Tensor)
            if piece is not None:
                if data.numel() == 0:  # more ranks than rows: this one has none
                    continue
                pieces[part][key] = piece
            tensors[part][key] = data.detach().cpu().contiguous()
        written: Future[list[WriteResult]] = Future()
        written.set_result([self._file(part, tensors[part], pieces[part]) for part in tensors])
        return written

    def _file(self, part: str, tensors: dict[str, Tensor], pieces: dict[str, Any]) -> WriteResult:
        """Write one file, on the disk when this returns; its name, size and SHA-256."""
        several = f"-{self._world.rank + 1:05d}-of-{self._world.size:05d}" if self._world.size > 1 else ""
        path = self._temporary / f"{part}{several}{SUFFIX}"
        try:
            save_file(tensors, path, {PIECES: json.dumps(pieces)} if pieces else None)
        except SafetensorError as error:  # wraps the system's error and keeps only its text
            raise OSError(str(error)) from error
        sync(path)
        found = fingerprint(path)
        return WriteResult(MetadataIndex(path.name), found["bytes"], found)

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Rank 0, after every rank has written."""
        files = {result.index.fqn: result.storage_data for rank in results for result in rank}
        if lost := [name for name in files if not (self._temporary / name).is_file()]:
            raise OSError(
                f"{lost[0]}, written by another process, is not there: the machines share no such folder"
            )
        state, marker = self._temporary / STATE, self._temporary / MARKER
        state.write_text(json.dumps(self._numbers, indent=1))
        sync(state)
        marker.write_text(json.dumps(dict(sorted({**files, STATE: fingerprint(state)}.items())), indent=1))
        sync(marker)
        sync(self._temporary)
        os.replace(self._temporary, self._folder)
        sync(self._folder.parent)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return isinstance(checkpoint_id, Path)


class Reader(StorageReader):
    """Reads slices out of the files that `describe` found."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        del checkpoint_id

    def read_metadata(self) -> Metadata:
        return self._metadata

    def set_up_storage_reader(
        self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any
    ) -> None:
        del metadata, is_coordinator

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> "Future[None]":
        wanted: dict[Path, list[tuple[str, ReadItem]]] = defaultdict(list)
        for item in plan.items:
            path, key = self._metadata.storage_data[item.storage_index]
            wanted[path].append((key, item))
        for path, items in wanted.items():
            with safe_open(path, framework="pt") as file:
                for key, item in items:
                    ranges = zip(item.storage_offsets, item.lengths, strict=True)
                    saved = file.get_slice(key)[tuple(slice(start, start + n) for start, n in ranges)]
                    target = planner.resolve_tensor(item).detach()
                    target.copy_(saved)
                    planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return isinstance(checkpoint_id, Path)


def _nested(parts: Parts) -> dict[str, Any]:
    """As PyTorch wants it, which makes PART.NAME of the names itself."""
    return {part: dict(tensors) for part, tensors in parts.items()}


def _piece(item: WriteItem, name: str) -> tuple[str, dict[str, Any] | None]:
    """(key in the file, what the header says of it): a whole tensor goes by its name and needs no words."""
    assert item.tensor_data is not None
    chunk, whole = item.tensor_data.chunk, item.tensor_data.size
    if chunk.sizes == whole:
        return name, None
    key = f"{name}@{','.join(map(str, chunk.offsets))}"
    return key, {"of": name, "offset": list(chunk.offsets), "shape": list(whole)}


def _processes(world: World) -> dict[str, Any]:
    """What PyTorch's functions are told of the other ranks."""
    return {"no_dist": True} if world.size == 1 else {"process_group": world.group}


def _announce_nothing() -> None:
    """One process is no accident here; PyTorch warns of it at each save."""
    warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)


@contextmanager
def _without_wrapping() -> Iterator[None]:
    """Raise what went wrong itself, where PyTorch wraps every rank's error into one that is no Exception."""
    try:
        yield
    except CheckpointException as error:
        causes = [cause for cause, _ in error.failures.values()]
        raise next((cause for cause in causes if isinstance(cause, OSError)), causes[0]) from error
