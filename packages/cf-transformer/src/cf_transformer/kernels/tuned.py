"""Tile sizes of the kernels: a static table, never tuned while a program runs."""

import json
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any

import torch

# read once, at import: a compiler may ask for widths, and cannot trace the reading of a file
_table = json.loads(files("cf_transformer.kernels").joinpath("configs/sm90.json").read_text())["tiles"]


@dataclass(frozen=True)
class Tile:
    """What one program works on, rows x columns, and with how many warps and pipeline stages.

    `measured` says whether the row was chosen by timings on a GPU; if not, by the registers, spills and load widths of
    the code compiled for sm_90.
    """

    rows: int
    columns: int
    warps: int
    stages: int
    measured: bool

    def options(self) -> dict[str, int | bool]:
        """The launch options of the compiler."""
        return {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}


FIELDS = [field.name for field in fields(Tile)]


@cache
def tile(op: str, width: int, dtype: torch.dtype) -> Tile:
    """The row of `op` and `dtype` with the smallest width that holds `width`; an error names what the table has."""
    for row in sorted(_rows(op, dtype), key=lambda row: row["width"]):
        if row["width"] >= width:
            return Tile(*(row[name] for name in FIELDS))
    raise ValueError(f"{op} has tiles for {dtype} up to width {widest(op, dtype)}, got {width}")


def widest(op: str, dtype: torch.dtype) -> int:
    """The largest width that `op` has a tile for; 0 if it has none for that precision."""
    return max((row["width"] for row in _rows(op, dtype)), default=0)


def _rows(op: str, dtype: torch.dtype) -> list[dict[str, Any]]:
    if op not in _table:
        raise ValueError(f"no tiles for op {op!r}; known: {', '.join(_table)}")
    name = str(dtype).removeprefix("torch.")
    return [row for row in _table[op] if name in row["dtypes"]]
