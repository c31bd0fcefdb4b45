"""Measured numbers on disk: one small file for each training, measure and seed, written whole, kept for good."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cf_apps.engine.files import write_text


@dataclass(frozen=True)
class Store:
    """measured: the folder of numbers, which is committed. runs: of run folders, which is not."""

    measured: Path
    runs: Path

    def file(self, key: str, measure: str, seed: int) -> Path:
        return self.measured / f"{key}-{measure}-{seed}.json"

    def has(self, key: str, measure: str, seed: int) -> bool:
        return self.file(key, measure, seed).exists()

    def read(self, key: str, measure: str, seed: int) -> dict[str, Any] | None:
        file = self.file(key, measure, seed)
        return json.loads(file.read_text()) if file.exists() else None

    def write(self, key: str, measure: str, seed: int, record: Mapping[str, Any]) -> None:
        self.measured.mkdir(parents=True, exist_ok=True)
        write_text(self.file(key, measure, seed), json.dumps(record, indent=1) + "\n")

    def run(self, key: str) -> Path:
        return self.runs / key

    @contextmanager
    def claimed(self, key: str) -> Iterator[bool]:
        """Whether this process may work on it: false while another one that is alive does."""
        self.runs.mkdir(parents=True, exist_ok=True)
        lock = self.runs / f"{key}.lock"
        mine = _take(lock)
        try:
            yield mine
        finally:
            if mine:
                lock.unlink(missing_ok=True)


def _take(lock: Path) -> bool:
    for _ in range(2):
        try:
            handle = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            if _alive(lock):
                return False
            lock.unlink(missing_ok=True)  # of a process that was killed
        else:
            os.write(handle, str(os.getpid()).encode())
            os.close(handle)
            return True
    return False


def _alive(lock: Path) -> bool:
    try:
        os.kill(int(lock.read_text() or "0") or os.getpid(), 0)
    except (ProcessLookupError, FileNotFoundError, ValueError):
        return False
    except PermissionError:
        pass
    return True
