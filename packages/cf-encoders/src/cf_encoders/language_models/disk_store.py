"""Features of captions on disk: appended batch by batch, read one by one, safe against kills and other processes.

FOLDER/ClipText-0123456789abcdef-float16/       one model's, never mixed with another's
    manifest.json                               which model, in full
    4711-89abcdef01234567.features              one process's; only that process ever writes to it
"""

import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool

from cf_encoders.configs import config_from_dict, require_positive
from cf_encoders.language_models.caption_index import CaptionIndex, Places, caption_keys
from cf_encoders.language_models.feature_file import append_batch, complete_batches, read_features
from cf_encoders.language_models.feature_store import StoredFeatures
from cf_encoders.weight_files import replaced

MANIFEST, ENDING = "manifest.json", ".features"
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
PADDINGS = ("left out", "kept")


@dataclass(frozen=True)
class Manifest:
    """Whose features a folder holds, and how. `padding`: "left out", or "kept" with the features it has."""

    model: str
    fingerprint: str
    width: int
    max_tokens: int
    dtype: str = "float16"
    padding: str = "left out"

    def __post_init__(self) -> None:
        require_positive(self, "width", "max_tokens")
        if self.dtype not in DTYPES:
            raise ValueError(f"unknown dtype of features {self.dtype!r}; known: {', '.join(DTYPES)}")
        if self.padding not in PADDINGS:
            raise ValueError(f"unknown padding {self.padding!r}; known: {', '.join(PADDINGS)}")

    @property
    def folder_name(self) -> str:
        padded = "-padded" if self.padding == "kept" else ""
        return f"{self.model}-{self.fingerprint[:16]}-{self.dtype}{padded}"


class DiskStore:
    """A FeatureStore in `folder`, which several models and several processes may share, also over a network.

    In memory are 36 bytes a caption. What other processes write is seen when a caption is looked for in vain. A
    process killed while it writes loses that batch, a file cut short what is behind the cut; features that do not
    match their checksum count as missing. ValueError when the folder has this name but is another model's.
    """

    def __init__(self, folder: Path | str, manifest: Manifest) -> None:
        self.folder, self.manifest = Path(folder) / manifest.folder_name, manifest
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / MANIFEST).is_file():
            with replaced(self.folder / MANIFEST) as temporary:
                temporary.write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")
        if (found := read_manifest(self.folder)) != manifest:
            raise ValueError(
                f"{self.folder} holds features of {found}, not of {manifest}; use another folder"
            )
        self._dtype = DTYPES[manifest.dtype]
        self._index = CaptionIndex()
        # how far each file has been read into the index
        self._files: list[Path] = []
        self._ends: list[int] = []
        # this process and its file
        self._own: tuple[int, int] | None = None
        self.refresh()

    @classmethod
    def open(cls, folder: Path | str) -> "DiskStore":
        """The only model's features in `folder`, or those of a subfolder given itself.

        FileNotFoundError when there are none, ValueError naming the subfolders when there are several.
        """
        folder = Path(folder)
        if (folder / MANIFEST).is_file():
            return cls(folder.parent, read_manifest(folder))
        found = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
        if not found:
            raise FileNotFoundError(f"no remembered features in {folder}: no {MANIFEST} in it or below it")
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise ValueError(f"{folder} has features of several models, give one of its folders: {names}")
        return cls(folder, read_manifest(found[0]))

    def __len__(self) -> int:
        return len(self._index)

    def has(self, captions: Sequence[str]) -> list[bool]:
        return self._find(captions)[0].tolist()

    def read(self, captions: Sequence[str]) -> list[StoredFeatures | None]:
        known, places = self._find(captions)
        found: list[StoredFeatures | None] = [None] * len(captions)
        for file in np.unique(places["file"][known]):
            here = np.flatnonzero(known & (places["file"] == file))
            in_order = here[np.argsort(places["offset"][here])]
            try:
                # opened anew each time: forked workers would share a handle, and its position
                with self._files[file].open("rb", buffering=0) as handle:
                    for i in in_order:
                        found[i] = read_features(handle, places[i], self.manifest.width, self._dtype)
            except FileNotFoundError:
                continue  # somebody removed it: its captions are missing
        return found

    def write(self, captions: Sequence[str], features: Sequence[StoredFeatures]) -> None:
        """Append them as one batch to this process's own file."""
        if captions:
            file = self._own_file()
            keys = caption_keys(captions)
            append_batch(self._files[file], self._ends[file], keys, features, self._dtype)
            self._take_in(file)

    def refresh(self) -> None:
        """See what other processes have written since."""
        for path in sorted(set(self.folder.glob(f"*{ENDING}")) - set(self._files)):
            self._add_file(path)
        for file in range(len(self._files)):
            self._take_in(file)

    def _find(self, captions: Sequence[str]) -> tuple[Bool[np.ndarray, "n"], Places]:
        keys = caption_keys(captions)
        known, places = self._index.find(keys)
        if not known.all():
            self.refresh()
            known, places = self._index.find(keys)
        return known, places

    def _take_in(self, file: int) -> None:
        row_bytes = self.manifest.width * self._dtype.itemsize
        for keys, places, end in complete_batches(self._files[file], self._ends[file], file, row_bytes):
            self._index.add(keys, places)
            self._ends[file] = end

    def _own_file(self) -> int:
        process = os.getpid()
        # a forked worker must not write to the file of its parent
        if self._own is None or self._own[0] != process:
            path = self.folder / f"{process}-{secrets.token_hex(8)}{ENDING}"
            self._own = process, self._add_file(path)
        return self._own[1]

    def _add_file(self, path: Path) -> int:
        self._files.append(path)
        self._ends.append(0)
        return len(self._files) - 1


def read_manifest(folder: Path) -> Manifest:
    """ValueError when the file is not a manifest."""
    try:
        return config_from_dict(Manifest, json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    except (json.JSONDecodeError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / MANIFEST} is not the manifest of a feature store: {error}") from error
