"""The layouts in which people keep captioned images, each read into the same stream of raw pairs.

    folder/metadata.jsonl or metadata.csv    a row per caption: file_name, text
    folder/cat.png + folder/cat.txt          a line per phrasing
    folder/*.parquet, or one .parquet file   a row per image: image, text

These are the layouts of the Hugging Face `imagefolder`, of most fine-tuning scripts, and of the image
datasets on the hub. Pictures stay undecoded here, so that one broken file costs one sample, not the run.
"""

import csv
import glob
import json
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cf_apps.data.captioned import DataError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
CAPTION_COLUMNS = ("text", "caption", "prompt", "captions")
LAYOUTS = "metadata.jsonl, metadata.csv, a .txt beside each image, or .parquet files"

_EXAMPLE_ROW = '{"file_name": "cat.png", "text": "a cat"}'


@dataclass(frozen=True)
class RawPair:
    """One image, encoded (bytes, or the file that holds them), and its phrasings, possibly none."""

    name: str
    image: bytes | Path
    captions: tuple[str, ...]

    def read(self) -> bytes:
        """The encoded image; OSError when its file cannot be read."""
        return self.image.read_bytes() if isinstance(self.image, Path) else self.image


def read_raw_pairs(source: Path) -> Iterable[RawPair]:
    """Find out which layout `source` has and read it. Raises DataError when it has none."""
    if not source.exists():
        raise DataError(f"no such data folder: {source}; give a folder with {LAYOUTS}")
    if source.is_file():
        if source.suffix != ".parquet":
            raise DataError(f"{source} is a file; give its folder, or a .parquet file")
        return _parquet([source])

    tables = [path for path in (source / "metadata.jsonl", source / "metadata.csv") if path.exists()]
    parquet = _visible_files(source, {".parquet"})
    images = _visible_files(source, IMAGE_SUFFIXES)
    if len(tables) > 1:
        raise DataError(f"{source} has both metadata.jsonl and metadata.csv; remove one of them")
    if tables:
        return _metadata(tables[0], images)
    if parquet:
        return _parquet(parquet)
    if images:
        return _text_files(source, images)
    raise DataError(f"{source} holds no images; known layouts: images with {LAYOUTS}")


def _metadata(table: Path, images: list[Path]) -> list[RawPair]:
    """Rows that name the same file are phrasings of one image; images no row names have no caption."""
    files = {_normal(image.relative_to(table.parent).as_posix()): image for image in images}
    captions: dict[str, list[str]] = {name: [] for name in files}
    for number, row in enumerate(_table_rows(table)):
        text = _column(row, CAPTION_COLUMNS, table)
        file_name = row[_column(row, ("file_name",), table)]
        if not isinstance(file_name, str) or not file_name:
            raise DataError(f"{table}: row {number} has no file_name; write the image's path there")
        captions.setdefault(_normal(file_name), []).extend(_phrasings(row[text]))
    return [
        RawPair(name, files.get(name, table.parent / name), tuple(texts)) for name, texts in captions.items()
    ]


def _normal(name: str) -> str:
    """One spelling per path: no leading ./, and accents composed (macOS writes them decomposed)."""
    return unicodedata.normalize("NFC", PurePosixPath(name).as_posix())


def _text_files(folder: Path, images: list[Path]) -> Iterator[RawPair]:
    for image in images:
        text = image.with_suffix(".txt")
        lines = text.read_text(encoding="utf-8-sig", errors="replace").splitlines() if text.exists() else []
        yield RawPair(image.relative_to(folder).as_posix(), image, _phrasings(lines))


def _parquet(files: list[Path]) -> Iterator[RawPair]:
    for file in files:
        for number, row in enumerate(_parquet_rows(file)):
            image = row[_column(row, ("image",), file)]
            text = _column(row, CAPTION_COLUMNS, file)
            name = f"{file.name}[{number}]"
            yield RawPair(name, _encoded(image, file, name), _phrasings(row[text]))


def _encoded(image: Any, file: Path, name: str) -> bytes | Path:
    """A parquet cell is bytes, a path beside the file, or the `datasets.Image` struct of both."""
    match image:
        case bytes():
            return image
        case {"bytes": bytes(data)}:
            return data
        case str(path) | {"path": str(path)}:
            return file.parent / path
        case None | {"bytes": None}:
            return b""
    raise DataError(f"{name}: the image column holds {type(image).__name__}; expected encoded image bytes")


def _table_rows(table: Path) -> Iterator[dict[str, Any]]:
    """The rows of a jsonl or csv file, through the standard library.

    `datasets` would guess types, and a caption "007" or "None" would come back as 7 or as nothing.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            if table.suffix == ".csv":
                rows = csv.DictReader(lines, strict=True)
                for row in rows:
                    if None in row:  # DictReader's key for surplus cells
                        raise DataError(
                            f"{table}: line {rows.line_num} has more cells than the header; "
                            "write a caption that holds a comma in double quotes"
                        )
                    yield row
                return
            for number, line in enumerate(lines, start=1):
                row = json.loads(line) if line.strip() else {}
                if not isinstance(row, dict):
                    raise DataError(f"{table}: line {number} is not a JSON object like {_EXAMPLE_ROW}")
                if row:
                    yield row
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {table}: {error}; each row should be like {_EXAMPLE_ROW}") from error


def _parquet_rows(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a parquet file, images undecoded; a stream, which leaves no cache behind."""
    from datasets import Image, load_dataset

    try:
        path = glob.escape(str(file.resolve()))  # load_dataset would expand a [ in a folder's name
        rows = load_dataset("parquet", data_files=path, split="train", streaming=True)
        for column, feature in (rows.features or {}).items():
            if isinstance(feature, Image):
                rows = rows.cast_column(column, Image(decode=False))
        yield from rows
    except Exception as error:  # pyarrow and datasets each have their own
        reason = " ".join(str(error.__cause__ or error).split())
        raise DataError(f"cannot read {file} as parquet: {reason[:300]}") from error


def _column(row: dict[str, Any], known: tuple[str, ...], table: Path) -> str:
    for column in known:
        if column in row:
            return column
    raise DataError(f"{table} has no column {' / '.join(known)}; its columns: {', '.join(row)}")


def _phrasings(value: Any) -> tuple[str, ...]:
    """A cell or a list of cells as the phrasings that say something."""
    texts = value if isinstance(value, list | tuple) else [value]
    return tuple(str(text).strip() for text in texts if text is not None and str(text).strip())


def _visible_files(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Files below `folder` with one of `suffixes`, in a fixed order, without hidden ones (._cat.png)."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    return sorted(path for path in found if not path.name.startswith("."))
