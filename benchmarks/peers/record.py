"""The JSON file of a comparison: what was run, of which commit, on what, with which libraries; then its tables."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any


def write_record(
    out: Path | None,
    command: str,
    settings: Mapping[str, Any],
    tables: Mapping[str, Sequence[Any]],
    libraries: Sequence[str] = ("torch",),
    threads: str = "one thread",
) -> None:
    """Write dataclass rows under the name of their table; without `out` nothing.

    command: the script and the options that change what its numbers mean.
    """
    if out is None:
        return
    about = {"command": f"benchmarks/peers/{command}", "commit": commit()}
    about["device"] = ", ".join(part for part in ("CPU", threads, platform.machine()) if part)
    made = {name: [asdict(row) for row in rows] for name, rows in tables.items()}
    record = {**about, **{name: version(name) for name in libraries}, **settings, **made}
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    part.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(part, out)


def commit() -> str:
    """The commit measured, marked where the tree differs from it."""
    described = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
    return described.stdout.strip() or "unknown"
