"""Extraction in child processes that are killed with SIGKILL, and in two at once; a process of its own.

    python extract_kills.py FOLDER

FOLDER/whole: shards that nobody disturbed. FOLDER/killed: a process died just before the 1st, 2nd, ... of its file
operations, and each time the next one went on. FOLDER/shared: two processes at the same time. Prints, as JSON, the
kills and which shards were made more than once.
"""

import json
import sys
from pathlib import Path

from cf_apps.data.shards.writing import Part
from cf_apps.engine.watching.progress import Silence
from cf_apps.t2i.extract.command import ExtractRequest, extract
from engine_kills import child, die_before_operation, wait
from t2i_tiny import CPU, SETTINGS, write_folder


def make(data: Path, out: Path, part: Part | None = None) -> None:
    """Shards of 6 pairs, as the tests' tiny recipe encodes them."""
    request = ExtractRequest(
        str(data), out, "tiny", flip=True, shard_size=6, batch_size=4, overrides=SETTINGS, part=part or Part()
    )
    extract(request, CPU, Silence())


def finished(out: Path) -> dict[str, int]:
    """When the file of each shard that is there was made; a record says that it is."""
    return {
        record.stem: record.with_suffix(".safetensors").stat().st_mtime_ns
        for record in (out / "shards").glob("*-*.json")
    }


def killed(data: Path, out: Path) -> dict[str, object]:
    """Kill until a process needs fewer file operations than it is given; what came of it."""
    kills, again, before = 0, set(), {}

    def dying() -> None:
        die_before_operation(kills + 1)
        make(data, out)

    while wait(child(dying)):
        kills, now = kills + 1, finished(out)
        again |= {name for name, made in before.items() if now.get(name) != made}
        before = now
    return {"kills": kills, "again": sorted(again)}


def main(folder: Path) -> None:
    data = write_folder(folder / "data")
    wait(child(lambda: make(data, folder / "whole")))
    found = killed(data, folder / "killed")
    both = [child(lambda part=part: make(data, folder / "shared", part)) for part in (Part(0, 2), Part(1, 2))]
    for process in both:
        wait(process)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
