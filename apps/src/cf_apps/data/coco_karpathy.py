"""COCO in the split of Karpathy and Li (2015), in which captioning is reported: dataset_coco.json and the pictures.

    ROOT/dataset_coco.json    images: filepath, filename, split (train, restval, val, test), sentences: raw, cocoid
    ROOT/train2014/*.jpg  ROOT/val2014/*.jpg

Training takes train and restval, 113,287 pictures; val and test are 5,000 each (CrossFlow sec. 5.2). The files for
Flickr8k and Flickr30k of the same authors are read too: they have no filepath, and imgid in place of cocoid.
Pictures stay on disk and are decoded when a batch asks for them.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from cf_apps.data.captioned import CaptionedBatch, DataError
from cf_apps.data.pairs import SkippedSamples
from cf_apps.data.square_image import UnreadableImage, square_rgb
from cf_apps.engine.ranks.draws import draws_of

FILE_NAME = "dataset_coco.json"
SIDES = {
    "train": "train",
    "restval": "train",
    "val": "val",
    "test": "test",
}  # split in the file -> half of ours

_EXAMPLE = (
    '{"images": [{"filepath": "val2014", "filename": "COCO_val2014_000000391895.jpg", "split": "test", ...}]}'
)


@dataclass(frozen=True)
class KarpathySplit:
    """One side of the set, as CaptionedImages: pictures by path, all sentences of each, COCO's image ids.

    A generator draws one of a picture's sentences; without, the first is given.
    """

    name: str
    image_size: int
    paths: tuple[Path, ...]
    sentences: tuple[tuple[str, ...], ...]
    ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, indices: Int64[Tensor, "b"], generator: torch.Generator | None = None) -> CaptionedBatch:
        """The pictures at `indices`, decoded now. Raises DataError naming a file that cannot be shown."""
        images = [self._decoded(i) for i in indices.tolist()]
        return CaptionedBatch(torch.stack(images), self.captions(indices, generator))

    def captions(self, indices: Int64[Tensor, "b"], generator: torch.Generator | None = None) -> list[str]:
        """The captions that `batch` gives, without a look at the pictures."""
        texts = [self.sentences[i] for i in indices.tolist()]
        draws = torch.zeros(len(texts)) if generator is None else draws_of(generator).uniform(len(texts))
        return [some[int(u * len(some))] for u, some in zip(draws.tolist(), texts, strict=True)]

    def references(self, indices: Int64[Tensor, "b"]) -> list[list[str]]:
        """All sentences of each picture: what evaluation compares with."""
        return [list(self.sentences[i]) for i in indices.tolist()]

    def _decoded(self, index: int) -> Tensor:
        path = self.paths[index]
        try:
            return torch.from_numpy(square_rgb(path.read_bytes(), self.image_size))
        except (OSError, UnreadableImage) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            raise DataError(
                f"{path}: {reason}; fetch this picture again, or delete it: pictures that are missing are skipped"
            ) from None


@dataclass(frozen=True)
class CocoKarpathy:
    """The three sides, and the pictures left out: missing, empty, or without a sentence."""

    train: KarpathySplit
    val: KarpathySplit
    test: KarpathySplit
    skipped: SkippedSamples


def load_coco_karpathy(
    annotations: str | Path, *, image_size: int, pictures: str | Path | None = None
) -> CocoKarpathy:
    """Read the annotations and look which pictures are there; none is opened yet.

    annotations: dataset_coco.json, or the folder that holds it. pictures: the folder with train2014 and val2014, or
    with all files side by side; None is the folder of the annotations.
    Raises DataError (one line, with the remedy): no such file, not this kind of file, an unknown split, a side
    without a single picture.
    """
    if image_size < 1:
        raise ValueError(f"image_size must be a positive number of pixels, got {image_size}")
    file = Path(annotations) / FILE_NAME if Path(annotations).is_dir() else Path(annotations)
    root = Path(pictures) if pictures is not None else file.parent
    records = _records(file)
    if not root.is_dir():
        raise DataError(f"no such folder of pictures: {root}; give the one that holds train2014 and val2014")
    found: dict[str, list[tuple[Path, tuple[str, ...], int]]] = {
        side: [] for side in ("train", "val", "test")
    }
    skipped: list[tuple[str, str]] = []
    there = _Listing(root)
    for number, record in enumerate(records):
        side, name = _side(record, number, file), _name(record, number, file)
        path, sentences = there.path(name), _sentences(record, number, file)
        if not sentences:
            skipped.append((name, "no sentence"))
        elif path is None:
            skipped.append((name, "no such file, or an empty one"))
        else:
            found[side].append((path, sentences, _id(record, number, file)))
    left_out = SkippedSamples(tuple(skipped))
    sides = {side: _split(f"{file} ({side})", image_size, rows) for side, rows in found.items()}
    for side, rows in found.items():
        if not rows:
            raise DataError(f"{root} holds no picture of {file.name}'s {side} side; {left_out}")
    return CocoKarpathy(**sides, skipped=left_out)


def is_coco_karpathy(source: str | Path) -> bool:
    """Whether a path is such a file by its looks: a .json, or a folder that holds dataset_coco.json."""
    path = Path(source)
    return path.suffix == ".json" or (path / FILE_NAME).is_file()


def _split(name: str, image_size: int, rows: Sequence[tuple[Path, tuple[str, ...], int]]) -> KarpathySplit:
    paths, sentences, ids = zip(*rows, strict=True) if rows else ((), (), ())
    return KarpathySplit(name, image_size, paths, sentences, ids)


class _Listing:
    """Which pictures lie below a folder: each folder is listed once, as 123,000 questions one by one take minutes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders: dict[Path, frozenset[str]] = {}

    def path(self, name: str) -> Path | None:
        """root/val2014/a.jpg, or root/a.jpg; None where neither is a file of at least a byte."""
        for path in (self.root / name, self.root / Path(name).name):
            if path.name in self._files(path.parent):
                return path
        return None

    def _files(self, folder: Path) -> frozenset[str]:
        if folder not in self.folders:
            try:
                with os.scandir(folder) as entries:
                    names = frozenset(e.name for e in entries if e.is_file() and e.stat().st_size > 0)
            except OSError:
                names = frozenset()
            self.folders[folder] = names
        return self.folders[folder]


def _records(file: Path) -> list[Mapping[str, Any]]:
    """The images of the annotation file."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"no such file: {file}; it is {FILE_NAME} of Karpathy's caption_datasets.zip"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {file}: {error}; fetch {FILE_NAME} again") from error
    images = values.get("images") if isinstance(values, dict) else None
    if not isinstance(images, list) or not images or not all(isinstance(record, dict) for record in images):
        raise DataError(f"{file} is no Karpathy split: it has no list 'images'; expected {_EXAMPLE}")
    return images


def _value(record: Mapping[str, Any], key: str, kind: type, number: int, file: Path) -> Any:
    """record[key], which must be there and of its kind."""
    if key not in record:
        raise DataError(
            f"{file}: image {number} has no {key!r}, only {', '.join(record)}; fetch {FILE_NAME} again"
        )
    if not isinstance(record[key], kind):
        raise DataError(f"{file}: image {number} has {key} {record[key]!r}; expected a {kind.__name__}")
    return record[key]


def _side(record: Mapping[str, Any], number: int, file: Path) -> str:
    split = _value(record, "split", str, number, file)
    if split not in SIDES:
        raise DataError(f"{file}: image {number} has an unknown split {split!r}; known: {', '.join(SIDES)}")
    return SIDES[split]


def _name(record: Mapping[str, Any], number: int, file: Path) -> str:
    folder = _value(record, "filepath", str, number, file) if "filepath" in record else ""
    return (Path(folder) / _value(record, "filename", str, number, file)).as_posix()


def _id(record: Mapping[str, Any], number: int, file: Path) -> int:
    return _value(
        record, "imgid" if "cocoid" not in record and "imgid" in record else "cocoid", int, number, file
    )


def _sentences(record: Mapping[str, Any], number: int, file: Path) -> tuple[str, ...]:
    """Every sentence that says something, in one line."""
    sentences = _value(record, "sentences", list, number, file)
    texts = [s.get("raw") or " ".join(s.get("tokens", ())) if isinstance(s, dict) else "" for s in sentences]
    return tuple(line for text in texts if (line := " ".join(str(text).split())))
