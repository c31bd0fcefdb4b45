"""Writing a set of shards: by any number of processes, whole shards only, each once."""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file

from cf_apps.data.captioned import DataError
from cf_apps.data.shards.content import Content
from cf_apps.data.shards.reading import open_shard
from cf_apps.data.shards.records import (
    MANIFEST,
    PLAN,
    SKIPPED,
    Manifest,
    Plan,
    ShardRecord,
    block_name,
    read,
    shards_folder,
    write,
)
from cf_apps.engine.errors import ConfigError, RunError
from cf_apps.engine.files import replaced, write_text


@dataclass(frozen=True)
class Part:
    """Which of `count` processes this is. Units are shared out where there are enough, else the blocks of each."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ConfigError(
                f"part {self.index}/{self.count} does not exist; the first of n is 0/n, the last n-1/n"
            )

    @classmethod
    def parse(cls, text: str) -> "Part":
        """'2/8' is the third of eight. Raises ConfigError."""
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal()):
            raise ConfigError(f"--part takes I/N with I from 0 to N - 1, got {text!r}; the first of 8 is 0/8")
        return cls(int(index), int(count))

    def takes_unit(self, unit: int, units: int) -> bool:
        return units < self.count or unit % self.count == self.index

    def takes_block(self, unit: int, units: int, block: int) -> bool:
        """Of a unit that it takes."""
        return units >= self.count or (unit + block) % self.count == self.index


@dataclass(frozen=True)
class UnitEnd:
    """A unit was read to its end: so many blocks."""

    blocks: int


@dataclass(frozen=True)
class ShardWriter:
    """Writes the shards of a plan into a folder that `records.begin` made."""

    folder: Path
    plan: Plan

    def done(self, unit: int, block: int) -> bool:
        """Whether a shard is there: only its record says so, and that is written last."""
        return self._record(block_name(unit, block)).is_file()

    def ended(self, unit: int) -> int | None:
        """How many blocks a unit has, once some process has read it to its end."""
        path = self._end(unit)
        return read(path, UnitEnd).blocks if path.is_file() else None

    def write_shard(
        self,
        unit: int,
        block: int,
        content: Content | None,
        skipped: Sequence[tuple[str, str]] = (),
        cut: int = 0,
    ) -> ShardRecord:
        """The shard, then its record. content: None where no pair of the block could be used.

        Raises RunError when it cannot be written; what is there stays good.
        """
        name = block_name(unit, block)
        record = ShardRecord(name, 0, 0, skipped=tuple(skipped), cut=cut)
        try:
            if content is not None:
                path = shards_folder(self.folder) / f"{name}.safetensors"
                with replaced(path) as temporary:
                    save_file(content.tensors(), temporary, {"shard": name})
                    record = replace(_counted(record, content, self.plan.held_out), **_measured(temporary))
            write(self._record(name), record)
        except (OSError, SafetensorError) as error:  # the latter, too, when the disk is full
            raise RunError(_cannot_write(self.folder, error)) from error
        return record

    def end_unit(self, unit: int, blocks: int) -> None:
        """Say that a unit was read to its end; every process that reads it there says the same."""
        _write_alike(self._end(unit), UnitEnd(blocks))

    def remove(self, name: str) -> None:
        """Forget a shard, so that it is made again."""
        self._record(name).unlink(missing_ok=True)
        (self.folder / MANIFEST).unlink(missing_ok=True)

    def missing(self) -> tuple[list[str], list[int]]:
        """(shards not there yet, units not read to their end yet), of all processes."""
        ends = [self.ended(unit) for unit in range(self.plan.units)]
        blocks = [
            block_name(unit, block) for unit, count in enumerate(ends) for block in range(count or 0)
            if not self.done(unit, block)
        ]  # fmt: skip
        return blocks, [unit for unit, count in enumerate(ends) if count is None]

    def finish(self) -> Manifest | None:
        """Write the manifest when every shard is there, whoever made it; None when some are missing.

        Raises DataError where no pair at all could be used.
        """
        if any(self.missing()):
            return None
        records = tuple(self.records())
        below = held_out_below(self.plan.held_out, records)
        if not (kept := tuple(record for record in records if record.samples)):
            raise DataError(f"{self.plan.source}: no usable captioned image; {_first_skipped(records)}")
        manifest = Manifest(
            plan=self.plan,
            shards=tuple(replace(record, skipped=()) for record in kept),
            train=tuple(record.samples - self._held_out(record, below) for record in kept),
            below=below,
            samples=sum(record.samples for record in kept),
            captions=sum(record.captions for record in kept),
            bytes=sum(record.bytes for record in kept),
            skipped=sum(len(record.skipped) for record in records),
            cut=sum(record.cut for record in records),
        )
        _write_alike(self.folder / MANIFEST, manifest)
        leftovers = ("shards/.*.tmp", f".{PLAN}.*.tmp", f".{MANIFEST}.*.tmp")  # of processes that were killed
        for leftover in (path for pattern in leftovers for path in self.folder.glob(pattern)):
            leftover.unlink(missing_ok=True)
        return manifest

    def list_skipped(self) -> int:
        """Write which pairs could not be used and why, of the shards that are there; returns how many."""
        rows = [
            json.dumps({"name": name, "reason": why}) for it in self.records() for name, why in it.skipped
        ]
        if rows:
            write_text(self.folder / SKIPPED, "\n".join(rows) + "\n")
        return len(rows)

    def records(self) -> Iterator[ShardRecord]:
        """Of the shards that are there, in the order of the source."""
        for path in sorted(shards_folder(self.folder).glob("*-*.json")):
            yield read(path, ShardRecord)

    def _held_out(self, record: ShardRecord, below: float) -> int:
        if below == self.plan.held_out:
            return record.held_out
        shard = open_shard(shards_folder(self.folder) / f"{record.name}.safetensors", record.sha256)
        return int((shard.draws < below).sum())

    def _record(self, name: str) -> Path:
        return shards_folder(self.folder) / f"{name}.json"

    def _end(self, unit: int) -> Path:
        return shards_folder(self.folder) / f"{unit:06}.end.json"


def held_out_below(share: float, records: Sequence[ShardRecord]) -> float:
    """The bound that makes `draw < bound` the rule of `split_by_hash`: a set so small that no draw falls below `share`
    gives up its lowest, one in which all do keeps its highest."""
    lowest = min((record.lowest for record in records if record.samples), default=1.0)
    highest = max((record.highest for record in records if record.samples), default=0.0)
    return min(max(share, math.nextafter(lowest, math.inf)), highest) if share else 0.0


def _counted(record: ShardRecord, content: Content, share: float) -> ShardRecord:
    draws = content.draws
    return replace(
        record,
        samples=len(content),
        captions=len(content.captions.ends),
        held_out=int((draws < share).sum()),
        lowest=float(draws.min()),
        highest=float(draws.max()),
    )


def _measured(path: Path) -> dict[str, int | str]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _write_alike(path: Path, record: UnitEnd | Manifest) -> None:
    """Write what several processes write, all of them the same.

    One that finishes the set clears temporary files away, and may take one that is being written here: then `path` is
    there already, from another process.
    """
    try:
        write(path, record)
    except FileNotFoundError:
        if not path.is_file():
            raise


def _cannot_write(folder: Path, error: Exception) -> str:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"cannot write to {folder}: {reason}; make room and run the same command again, finished shards are kept"


def _first_skipped(records: Sequence[ShardRecord]) -> str:
    skipped = [pair for record in records for pair in record.skipped]
    return f"{len(skipped)} skipped" + (f", the first {skipped[0][0]}: {skipped[0][1]}" if skipped else "")
