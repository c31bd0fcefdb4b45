"""What commands tell people: lines and tables on the terminal, and the same numbers as JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cf_apps.engine.errors import RunError
from cf_apps.engine.files import write_text


def say(line: str) -> None:
    """One line on standard output."""
    print(line, flush=True)


def print_table(title: str, columns: Mapping[str, Mapping[str, Any]], out: Path | None = None) -> None:
    """Named columns of named numbers, side by side; with `out`, also as JSON, which alone has what is nested."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    table.add_column("")
    for name in columns:
        table.add_column(name.replace("_", " "), justify="right")
    flat = (
        key for column in columns.values() for key, value in column.items() if not isinstance(value, Mapping)
    )
    for row in dict.fromkeys(flat):
        table.add_row(row.replace("_", " "), *(_shown(column.get(row)) for column in columns.values()))
    Console().print(table)
    if out is not None:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_text(out, json.dumps(columns, indent=1))
        except OSError as error:
            raise RunError(f"cannot write {out}: {error.strerror or error}; choose another --out") from error
        say(f"wrote {out}")


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
    if isinstance(value, list):
        return " ".join(_shown(part) for part in value)
    return str(value)
