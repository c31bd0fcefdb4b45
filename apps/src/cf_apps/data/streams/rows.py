"""Rows that hold their pictures, through `datasets`: parquet files, and sets of the Hugging Face hub.

Both are read as streams, which leaves no cache behind; pictures stay undecoded.
"""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cf_apps.data.captioned import DataError
from cf_apps.data.streams.raw import (
    CAPTION_COLUMNS,
    PairSource,
    PairUnit,
    RawPair,
    column,
    encoded,
    phrasings,
)

HUB = "hub:"
IMAGE_COLUMNS = ("image", "jpg", "png", "webp", "img")


def parquet_unit(file: Path) -> PairUnit:
    """A row per image: image, text."""

    def read(start: int) -> Iterator[RawPair]:
        path = glob.escape(str(file.resolve()))  # load_dataset would expand a [ in a folder's name
        try:
            rows = _opened("parquet", "train", data_files=path)
            for number, row in enumerate(rows.skip(start) if start else rows, start):
                yield _pair(row, f"{file.name}[{number}]", ("image",), file, file.parent)
        except DataError:
            raise
        except Exception as error:  # pyarrow and datasets each have their own
            raise DataError(f"cannot read {file} as parquet: {_reason(error)}") from error

    return PairUnit(file.name, read)


def hub_source(name: str) -> PairSource:
    """`hub:OWNER/NAME`, `hub:OWNER/NAME:SPLIT` or `hub:FOLDER`: whatever `datasets.load_dataset` opens by that name.

    One unit for each of its files. Raises DataError when it cannot be opened, with what `datasets` says of it.
    """
    path, _, split = name.removeprefix(HUB).partition(":")
    try:
        rows = _opened(path, split or "train")
        count = rows.num_shards
    except Exception as error:  # the network, the name, the split, the files: each has its own
        raise DataError(
            f"cannot open {name}: {_reason(error)}; give {HUB}OWNER/NAME or {HUB}OWNER/NAME:SPLIT"
        ) from error
    units = [PairUnit(f"{path}[{unit}]", _hub_reader(rows, count, unit, name)) for unit in range(count)]
    return PairSource(name, units, f"{name} {count}")


def _hub_reader(rows: Any, count: int, unit: int, name: str) -> Any:
    def read(start: int) -> Iterator[RawPair]:
        try:
            some = rows.shard(count, unit)
            for number, row in enumerate(some.skip(start) if start else some, start):
                yield _pair(row, f"{unit}[{number}]", IMAGE_COLUMNS, name, None)
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"cannot read {name}: {_reason(error)}; run the same command again") from error

    return read


def _opened(path: str, split: str, **options: Any) -> Any:
    """A streaming set whose pictures are not decoded."""
    from datasets import Image, load_dataset

    rows = load_dataset(path, split=split, streaming=True, **options)
    for name, feature in (rows.features or {}).items():
        if isinstance(feature, Image):
            rows = rows.cast_column(name, Image(decode=False))
    return rows


def _pair(
    row: dict[str, Any], name: str, images: Sequence[str], table: Path | str, folder: Path | None
) -> RawPair:
    image = row[column(row, images, table)]
    return RawPair(name, encoded(image, folder, name), phrasings(row[column(row, CAPTION_COLUMNS, table)]))


def _reason(error: Exception) -> str:
    return " ".join(str(error.__cause__ or error).split())[:300]
