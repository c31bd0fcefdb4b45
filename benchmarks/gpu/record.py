"""The results on disk: rows by part and name, written whole after each, kept while what they measure is the same."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def fingerprint(files: Iterable[Path]) -> str:
    """Of what is in the files, not of where they are: the same sources have the same one on every machine."""
    digests = sorted(hashlib.sha256(file.read_bytes()).digest() for file in files)
    return hashlib.sha256(b"".join(digests)).hexdigest()[:16]


class Record:
    """Rows of a run and the setting they belong to.

    A file of another setting (other sources, device, torch, or a dry run) is begun anew; `command` and `commit` may
    differ. A row that was under way when the process ended is an error row.
    """

    SAME = ("sources", "device", "torch", "dry")

    def __init__(self, file: Path, setting: dict[str, Any]) -> None:
        self.file = file
        self.content: dict[str, Any] = {**setting, "parts": {}}
        before = json.loads(file.read_text()) if file.exists() else {}
        if before and all(before.get(key) == setting[key] for key in self.SAME):
            self.content["parts"] = before["parts"]
            if under_way := before.get("under_way"):
                part, name = under_way
                self.add(part, name, {"error": "the process ended, or was ended, while this was measured"})

    def has(self, part: str, name: str) -> bool:
        """Whether the row is there, also if it is an error."""
        return name in self.rows(part)

    def rows(self, part: str) -> dict[str, Row]:
        """The rows of a part by name."""
        return self.content["parts"].get(part, {})

    def begin(self, part: str, name: str) -> None:
        """Put down what is being measured."""
        self.content["under_way"] = [part, name]
        self._write()

    def add(self, part: str, name: str, row: Row) -> None:
        """Keep a row; nothing is under way any more."""
        self.content["parts"].setdefault(part, {})[name] = row
        self.content.pop("under_way", None)
        self._write()

    def forget(self, text: str) -> list[str]:
        """Drop every row whose `part/name` contains `text`; their names."""
        dropped = [
            (part, name)
            for part, rows in self.content["parts"].items()
            for name in rows
            if text in f"{part}/{name}"
        ]
        for part, name in dropped:
            del self.content["parts"][part][name]
        return [f"{part}/{name}" for part, name in dropped]

    def errors(self) -> list[str]:
        """`part/name: why` of every error row."""
        return [
            f"{part}/{name}: {row['error']}"
            for part, rows in self.content["parts"].items()
            for name, row in rows.items()
            if "error" in row
        ]

    def _write(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        beside = self.file.with_suffix(".part")
        beside.write_text(json.dumps(self.content, indent=1) + "\n")
        os.replace(beside, self.file)
