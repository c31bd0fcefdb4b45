"""Tables of captions that lie beside their pictures: .jsonl and .csv."""

import csv
import json
import unicodedata
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any

from cf_apps.data.captioned import DataError
from cf_apps.data.streams.raw import CAPTION_COLUMNS, PairUnit, RawPair, column, listed, phrasings

FILE_COLUMNS = ("file_name", "img_path", "image_path")
TABLE_SUFFIXES = frozenset({".jsonl", ".csv"})

_EXAMPLE_ROW = '{"file_name": "cat.png", "text": "a cat"}'


def table_unit(table: Path) -> PairUnit:
    """A table by itself, read as a stream: a row per caption, its picture's path taken from the table's folder.

    Rows that follow one another and name the same picture are phrasings of it.
    """
    return listed(table.name, lambda: _stream(table))


def _stream(table: Path) -> Iterator[RawPair]:
    for name, rows in groupby(named_captions(table), itemgetter(0)):
        yield RawPair(name, table.parent / name, tuple(text for _, texts in rows for text in texts))


def named_captions(table: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(path of the picture as `normal` writes it, phrasings) of each row. Raises DataError naming the row."""
    for number, row in enumerate(_rows(table)):
        text = column(row, CAPTION_COLUMNS, table)
        file_name = row[column(row, FILE_COLUMNS, table)]
        if not isinstance(file_name, str) or not file_name:
            raise DataError(f"{table}: row {number} has no file_name; write the image's path there")
        yield normal(file_name), phrasings(row[text])


def normal(name: str) -> str:
    """One spelling per path: no leading ./, and accents composed (macOS writes them decomposed)."""
    return unicodedata.normalize("NFC", PurePosixPath(name).as_posix())


def _rows(table: Path) -> Iterator[dict[str, Any]]:
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
