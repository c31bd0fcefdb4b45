"""The .features file: batches of captions' features, each written at once and complete or ignored.

header    magic, number of captions, bytes of features, CRC-32 of the table
table     a row for each caption: key, rows, tokens, CRC-32 of its features
features  rows * width numbers for each caption
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from cf_encoders.language_models.caption_index import KEY, PLACE, Keys, Places
from cf_encoders.language_models.feature_store import StoredFeatures

HEADER = struct.Struct("<8sIQI")
MAGIC = b"cf-feat1"
ROW = np.dtype([("key", KEY), ("rows", "<u2"), ("tokens", "<u2"), ("crc", "<u4")])


def append_batch(
    path: Path, end: int, keys: Keys, features: Sequence[StoredFeatures], dtype: torch.dtype
) -> None:
    """Write these features behind `end`, over whatever an earlier write left there half done."""
    payloads = [to_bytes(one.rows.to(dtype)) for one in features]
    table = np.empty(len(keys), dtype=ROW)
    table["key"] = keys
    table["rows"] = [len(one.rows) for one in features]
    table["tokens"] = [one.length for one in features]
    table["crc"] = [zlib.crc32(payload) for payload in payloads]
    rows, payload = table.tobytes(), b"".join(payloads)
    header = HEADER.pack(MAGIC, len(table), len(payload), zlib.crc32(rows))
    with path.open("r+b" if path.exists() else "xb") as handle:
        handle.seek(end)
        handle.truncate()
        handle.write(header + rows + payload)


def complete_batches(path: Path, start: int, file: int, row_bytes: int) -> Iterator[tuple[Keys, Places, int]]:
    """(keys, their places, end) of each batch behind `start`, up to one that is cut short or still being written."""
    size = path.stat().st_size if path.exists() else 0
    if size <= start:
        return
    with path.open("rb") as handle:
        while (table := _table(handle, start, size, row_bytes)) is not None:
            lengths = table["rows"].astype(np.int64) * row_bytes
            first = start + HEADER.size + table.nbytes
            places = np.empty(len(table), dtype=PLACE)
            places["file"], places["offset"] = file, first + np.cumsum(lengths) - lengths
            for name in ("rows", "tokens", "crc"):
                places[name] = table[name]
            start = first + int(lengths.sum())
            yield np.ascontiguousarray(table["key"]), places, start


def read_features(handle: Any, place: Any, width: int, dtype: torch.dtype) -> StoredFeatures | None:
    """The features at this row of Places in the open file; None where the bytes are not those that were written."""
    size = int(place["rows"]) * width * dtype.itemsize
    handle.seek(int(place["offset"]))
    # a fresh, writable buffer: the tensor keeps it
    data = bytearray(size)
    if handle.readinto(data) != size or zlib.crc32(data) != place["crc"]:
        return None
    rows = torch.frombuffer(data, dtype=dtype) if size else torch.empty(0, dtype=dtype)
    return StoredFeatures(rows.view(-1, width), int(place["tokens"]))


def to_bytes(rows: Tensor) -> bytes:
    """The numbers as they lie in memory; numpy has no bfloat16, so they go as bytes."""
    return rows.contiguous().view(torch.uint8).numpy().tobytes()


def _table(handle: BinaryIO, start: int, size: int, row_bytes: int) -> Shaped[np.ndarray, "n"] | None:
    """The table of the batch at `start`, unless something of it is missing in a file of this size."""
    handle.seek(start)
    header = handle.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    magic, count, payload, crc = HEADER.unpack(header)
    end = start + HEADER.size + count * ROW.itemsize + payload
    if magic != MAGIC or end > size:
        return None
    rows = handle.read(count * ROW.itemsize)
    if zlib.crc32(rows) != crc:
        return None
    table = np.frombuffer(rows, dtype=ROW)
    return table if int(table["rows"].astype(np.int64).sum()) * row_bytes == payload else None
