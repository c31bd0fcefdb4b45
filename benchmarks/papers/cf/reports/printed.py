"""The numbers that the papers print, from tables.json."""

import json
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[2] / "tables.json"
Printed = dict[str, dict[str, float | str | None]]


@cache
def everything() -> dict[str, Any]:
    return json.loads(FILE.read_text())


def printed(table: str) -> Printed:
    """A table of the paper: name of the row -> name of the column -> value, None where the paper has a dash."""
    found = everything()[table]
    first, *columns = found["columns"]
    assert first in ("method", "task", "claim"), f"{table} is a table of {first}s"
    return {row[0]: dict(zip(columns, row[1:], strict=True)) for row in found["rows"]}


def title(table: str) -> str:
    found = everything()[table]
    return f"{found['table']}: {found['caption']}"
