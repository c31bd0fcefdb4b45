"""What a run folder tells of its run, of whatever task, also while it goes on or after something broke."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cf_apps.engine.errors import RunError
from cf_apps.engine.run import read_config
from cf_apps.engine.saving.checkpoint import checkpoints
from cf_apps.engine.watching.lines import read_lines

Record = Mapping[str, Any]
KINDS = {
    # what a record of the log holds   of which type
    "losses": Mapping,
    "evaluation": Mapping,
    "event": str,
}


@dataclass(frozen=True)
class Summary:
    """A run folder, read once.

    config: config.json. log: the log's records by kind, in order, each with a 'step'; what is none of them is counted
    in `damaged`. saved: the steps of the complete checkpoints. scores: the columns of report.json, where a demo wrote
    one. quiet: seconds since the log was written to; None without a log.
    """

    run: Path
    config: Record
    log: Mapping[str, Sequence[Record]]
    damaged: int
    saved: Sequence[int]
    scores: Mapping[str, Record]
    quiet: float | None

    def part(self, name: str) -> Record:
        """A part of config.json: 'task', 'fit', 'device', 'versions'; empty where it is missing."""
        return _mapping(self.config.get(name))

    @property
    def step(self) -> int:
        """The last step that the log or a checkpoint knows of."""
        return max([*(record["step"] for record in self.log["losses"][-1:]), *self.saved[-1:]], default=0)

    @property
    def starts(self) -> list[tuple[str, str]]:
        """(time, command) of each start, the first one first."""
        starts = self.config.get("starts")
        found = [_mapping(start) for start in starts] if isinstance(starts, list) else []
        return [(str(start.get("time", "")), str(start.get("command", ""))) for start in found]


def read_summary(run: Path) -> Summary:
    """Read a run folder; raises RunError for a folder whose config.json is missing or cannot be read."""
    config = read_config(run)
    log: dict[str, list[Record]] = {kind: [] for kind in KINDS}
    path = run / "log.jsonl"
    try:
        records = read_lines(path)
        lines = len(path.read_bytes().splitlines()) if path.exists() else 0
        quiet = max(0.0, time.time() - path.stat().st_mtime) if path.exists() else None
    except OSError as error:
        raise RunError(
            f"cannot read {path}: {error.strerror or error}; give a folder that can be read"
        ) from error
    for record in records:
        kind = _kind(record)
        if (
            kind is not None and record not in log[kind][-1:]
        ):  # a resumed run may meet, and tell, the same event again
            log[kind].append(record)
    damaged = lines - sum(_kind(record) is not None for record in records)
    return Summary(run, config, log, damaged, list(checkpoints(run)), _scores(run / "report.json"), quiet)


def _kind(record: Record) -> str | None:
    """Which kind of record it is; None for what no run writes."""
    if not isinstance(record.get("step"), int) or not isinstance(record.get("stats", {}), Mapping):
        return None
    return next((kind for kind, form in KINDS.items() if isinstance(record.get(kind), form)), None)


def _scores(path: Path) -> dict[str, Record]:
    """The columns of a demo's report; none where it is missing or damaged."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    columns = _mapping(_mapping(report).get("scores"))
    return {name: column for name, column in columns.items() if isinstance(column, Mapping)}


def _mapping(value: object) -> Record:
    return value if isinstance(value, Mapping) else {}
