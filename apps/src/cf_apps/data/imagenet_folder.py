"""Folders of pictures to learn from, ImageNet's among them, prepared as the paper does (CrossFlow appendix A).

    ROOT/train/CLASS/NAME.JPEG    ROOT/val/CLASS/NAME.JPEG or ROOT/val/NAME.JPEG    (ImageNet; classes do not matter)
    FOLDER/.../NAME.png                                                             (any other folder)

Pictures whose shorter side is below image_size are dropped and counted: enlarged, they would teach blur. From the rest
the centre square is cut out and resized to image_size, when it is asked for.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Int64
from torch import Tensor

from cf_apps.data.captioned import DataError, split_by_hash
from cf_apps.data.pairs import SkippedSamples
from cf_apps.data.picture_files import PictureFiles, Scanned, scan

IMAGENET_VAL = (
    0.01  # of the training pictures, to choose by; ImageNet's own val folder is what papers report on
)
FOLDER_HELD_OUT = 0.1  # of any other folder: half of it val, half test


@dataclass(frozen=True)
class PictureFolder:
    """val: to choose by; test: to report. too_small: how many were dropped for their size; skipped: not readable."""

    train: PictureFiles
    val: PictureFiles
    test: PictureFiles
    too_small: int
    skipped: SkippedSamples


def is_imagenet(root: Path) -> bool:
    """Whether a folder is laid out like ImageNet."""
    return (root / "train").is_dir() and (root / "val").is_dir()


def load_imagenet(root: str | Path, image_size: int = 256, cache: Path | None = None) -> PictureFolder:
    """An ImageNet-style folder: test is its val folder, val a hundredth of train by a hash of the names.

    cache: see `scan`. Raises DataError in one line, with the remedy, where no training or no test picture is left.
    """
    root = Path(root)
    if not is_imagenet(root):
        raise DataError(
            f"{root} has no train and val folders; arrange it as train/CLASS/NAME.JPEG, val/NAME.JPEG"
        )
    everything = scan(root, cache)
    train, test = ([it for it in everything if it.name.startswith(f"{part}/")] for part in ("train", "val"))
    usable, held = _usable(root / "train", train, image_size), _usable(root / "val", test, image_size)
    learned, chosen_by = split_by_hash([it.name for it in usable], IMAGENET_VAL)
    files = _set(root, usable, image_size)
    return PictureFolder(
        files.subset(learned, f"{root} (train)"),
        files.subset(chosen_by, f"{root} (val)"),
        _set(root, held, image_size, "test"),
        _too_small([*train, *test], image_size),
        _skipped([*train, *test]),
    )


def load_folder(folder: str | Path, image_size: int, cache: Path | None = None) -> PictureFolder:
    """Any folder of pictures: nine tenths to train, the rest to choose by (val) and to report (test).

    The bytes of a file alone decide on its side: copies of one picture never meet across a border, and adding pictures
    moves none. Raises DataError as `load_imagenet`.
    """
    folder = Path(folder)
    found = scan(folder, cache)
    usable = _usable(folder, found, image_size)
    train, val, test = _three_ways([_fingerprint(folder / it.name) for it in usable])
    files = _set(folder, usable, image_size)
    return PictureFolder(
        files.subset(train, f"{folder} (train)"),
        files.subset(val, f"{folder} (val)"),
        files.subset(test, f"{folder} (test)"),
        _too_small(found, image_size),
        _skipped(found),
    )


def _three_ways(keys: Sequence[str]) -> tuple[Int64[Tensor, "a"], Int64[Tensor, "b"], Int64[Tensor, "c"]]:
    """(train, val, test) indices, each decided by its key alone."""
    train, held = split_by_hash(keys, FOLDER_HELD_OUT)
    test, val = split_by_hash([f"test or val: {keys[i]}" for i in held.tolist()], 0.5)
    return train, held[val], held[test]


def _fingerprint(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # unreadable now: decoding will say so
        return path.name


def _usable(folder: Path, found: Sequence[Scanned], image_size: int) -> list[Scanned]:
    usable = [it for it in found if it.reason is None and it.shorter_side >= image_size]
    if not found:
        raise DataError(f"{folder} holds no pictures; give a folder of .png, .jpg, .webp, ... files")
    if not usable:
        raise DataError(
            f"{folder}: none of {len(found)} pictures can be used; {_too_small(found, image_size)} have a side "
            f"shorter than {image_size} pixels (train a smaller image_size), {_skipped(found)}"
        )
    return usable


def _set(folder: Path, files: Sequence[Scanned], image_size: int, part: str = "all") -> PictureFiles:
    return PictureFiles(folder, tuple(it.name for it in files), image_size, f"{folder} ({part})")


def _too_small(found: Sequence[Scanned], image_size: int) -> int:
    return sum(it.reason is None and it.shorter_side < image_size for it in found)


def _skipped(found: Sequence[Scanned]) -> SkippedSamples:
    return SkippedSamples(tuple((it.name, it.reason) for it in found if it.reason is not None))
