"""The layouts in which people keep captioned images, each read into the same stream of raw pairs.

    folder/metadata.jsonl or metadata.csv    a row per caption: file_name, text
    folder/cat.png + folder/cat.txt          a line per phrasing
    folder/*.parquet, or one .parquet file   a row per image: image, text
    folder/*.tar, or one .tar file           WebDataset: cat.png, cat.txt (or cat.json) side by side
    pairs.jsonl or pairs.csv                 a row per caption, as above, read as a stream

These are the layouts of the Hugging Face `imagefolder`, of most fine-tuning scripts, and of the image
datasets on the hub. Pictures stay undecoded here, so that one broken file costs one sample, not the run.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cf_apps.data.captioned import DataError
from cf_apps.data.streams.raw import PairSource, PairUnit, RawPair, listed, phrasings
from cf_apps.data.streams.rows import parquet_unit
from cf_apps.data.streams.tables import TABLE_SUFFIXES, named_captions, normal, table_unit
from cf_apps.data.streams.tars import tar_unit

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
LAYOUTS = "metadata.jsonl, metadata.csv, a .txt beside each image, .parquet files or .tar files"
FILES = ".parquet, .tar, .jsonl or .csv"


def open_pairs(source: Path) -> PairSource:
    """Find out which layout `source` has; nothing but lists of names is read yet. Raises DataError when it has none."""
    if not source.exists():
        raise DataError(f"no such data folder: {source}; give a folder with {LAYOUTS}")
    if source.is_file():
        return _source(source, [_file_unit(source)], [source])
    tables = [path for path in (source / "metadata.jsonl", source / "metadata.csv") if path.exists()]
    images = _visible_files(source, IMAGE_SUFFIXES)
    if len(tables) > 1:
        raise DataError(f"{source} has both metadata.jsonl and metadata.csv; remove one of them")
    if tables:
        return _source(
            source, [listed(tables[0].name, lambda: _metadata(tables[0], images))], [*tables, *images]
        )
    if files := _visible_files(source, {".parquet"}) or _visible_files(source, {".tar"}):
        return _source(source, [_file_unit(file) for file in files], files)
    if images:
        return _source(source, [listed(source.name, lambda: _text_files(source, images))], images)
    raise DataError(f"{source} holds no images; known layouts: images with {LAYOUTS}")


def _file_unit(file: Path) -> PairUnit:
    if file.suffix == ".parquet":
        return parquet_unit(file)
    if file.suffix == ".tar":
        return tar_unit(file, IMAGE_SUFFIXES)
    if file.suffix in TABLE_SUFFIXES:
        return table_unit(file)
    raise DataError(f"{file} is a file; give its folder, or a {FILES} file")


def _source(source: Path, units: Sequence[PairUnit], files: Sequence[Path]) -> PairSource:
    """What the names of the files and their sizes tell of the contents goes with the units."""
    digest = hashlib.sha256()
    for file in files:
        name = file.name if file == source else file.relative_to(source).as_posix()
        digest.update(f"{name} {file.stat().st_size}\n".encode("utf-8", "surrogateescape"))
    return PairSource(str(source.resolve()), units, digest.hexdigest())


def _metadata(table: Path, images: list[Path]) -> Iterator[RawPair]:
    """Rows that name the same file are phrasings of one image; images no row names have no caption."""
    files = {normal(image.relative_to(table.parent).as_posix()): image for image in images}
    captions: dict[str, list[str]] = {name: [] for name in files}
    for name, texts in named_captions(table):
        captions.setdefault(name, []).extend(texts)
    for name, texts in captions.items():
        yield RawPair(name, files.get(name, table.parent / name), tuple(texts))


def _text_files(folder: Path, images: list[Path]) -> Iterator[RawPair]:
    for image in images:
        text = image.with_suffix(".txt")
        lines = text.read_text(encoding="utf-8-sig", errors="replace").splitlines() if text.exists() else []
        yield RawPair(image.relative_to(folder).as_posix(), image, phrasings(lines))


def _visible_files(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Files below `folder` with one of `suffixes`, in a fixed order, without hidden ones (._cat.png)."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    return sorted(path for path in found if not path.name.startswith("."))
