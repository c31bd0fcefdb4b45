"""Files of one JSON object a line, as a run writes them."""

import json
from pathlib import Path
from typing import Any


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file, in order; none where there is no file.

    Lines that are no JSON object are left out: one cut by a kill, or what a broken disk made of it.
    """
    if not path.exists():
        return []
    found = [_object(line) for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    return [record for record in found if record is not None]


def _object(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
