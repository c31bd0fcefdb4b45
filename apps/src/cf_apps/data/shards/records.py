"""What is written about shards: the plan before the first, a record of each, and the manifest when all are there.

    SHARDS/plan.json  manifest.json  skipped.jsonl
           shards/000003-000012.safetensors    block 12 of unit 3 of the source
                  000003-000012.json           its record, written after it
                  000003.end.json              unit 3 was read to its end, and has that many blocks

A shard without a record is not there. A set without a manifest is not finished.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cf_apps.data.captioned import DataError
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.files import write_text
from cf_apps.engine.records import from_dict

FORMAT = "crossflow shards 1"
PLAN, MANIFEST, SKIPPED = "plan.json", "manifest.json", "skipped.jsonl"
T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """What all shards of a set share.

    source, contents, units: of the PairSource. shard_size: raw pairs of a block; a shard has those of use.
    image_size: of the squares cut from the pictures. latent: shape of x_1. language, codec: their configs as the task
    keeps them, the language model's `padding`, and a `fingerprint` of the weights of each. width: of token features,
    0 where none are kept. held_out: the share of pictures kept for validation.
    made_with: versions, commit and command of the process that began.
    """

    source: str
    contents: str
    units: int
    shard_size: int
    image_size: int
    latent: tuple[int, ...]
    language: Mapping[str, Any]
    codec: Mapping[str, Any]
    width: int
    max_tokens: int
    flip: bool
    pictures: bool
    held_out: float
    made_with: Mapping[str, Any] = field(default_factory=dict)
    format: str = FORMAT

    def differences(self, other: "Plan") -> list[str]:
        """Where the two would give other shards, as 'name was this, is that now'. Where weights lie counts not."""
        mine, theirs = self._as_json(), other._as_json()
        return [
            f"{name} was {mine[name]}, is {theirs[name]} now" for name in mine if mine[name] != theirs[name]
        ]

    def _as_json(self) -> dict[str, Any]:
        """What decides on the content, as it will be read again."""
        values = json.loads(json.dumps(asdict(self)))
        del values["made_with"]
        for part in ("language", "codec"):
            values[part].pop("path", None)
        return values


@dataclass(frozen=True)
class ShardRecord:
    """One shard. samples, captions: how many it holds; 0 samples: it has no file. sha256: of its file, in bytes.

    held_out: samples with a draw below the plan's share; lowest, highest: the draws' range. skipped: (name, reason).
    cut: captions longer than the language model reads, whose end is lost.
    """

    name: str
    samples: int
    captions: int
    held_out: int = 0
    lowest: float = 1.0
    highest: float = 0.0
    bytes: int = 0
    sha256: str = ""
    skipped: tuple[tuple[str, str], ...] = ()
    cut: int = 0


@dataclass(frozen=True)
class Manifest:
    """A finished set. below: pictures with a draw below this are held out. train: samples of each shard that are not.

    samples, captions, bytes, skipped, cut: totals.
    """

    plan: Plan
    shards: tuple[ShardRecord, ...]
    train: tuple[int, ...]
    below: float
    samples: int
    captions: int
    bytes: int
    skipped: int
    cut: int


def shards_folder(folder: Path) -> Path:
    return folder / "shards"


def block_name(unit: int, block: int) -> str:
    return f"{unit:06}-{block:06}"


def is_shards(name: str) -> bool:
    """Whether a path is a folder of shards, finished or begun."""
    return any((Path(name) / file).is_file() for file in (MANIFEST, PLAN))


def begin(folder: Path, plan: Plan) -> Plan:
    """Write the plan, or find that an earlier process wrote the same; returns the one on disk.

    Raises ConfigError where the folder has another plan, or something else.
    """
    found = [path.name for path in folder.iterdir()] if folder.exists() else []
    strangers = [name for name in found if name != "shards" and not name.endswith(".tmp")]  # left by a kill
    if strangers and not is_shards(str(folder)):
        raise ConfigError(f"{folder} is not empty and holds no shards; choose another --out")
    if not (folder / PLAN).is_file():
        shards_folder(folder).mkdir(parents=True, exist_ok=True)
        write(folder / PLAN, plan)
    earlier = read(folder / PLAN, Plan)
    if differences := earlier.differences(plan):
        raise ConfigError(f"{folder} was begun otherwise ({'; '.join(differences)}); choose another --out")
    return earlier


def write(path: Path, record: Any) -> None:
    """A dataclass as JSON, whole or not at all."""
    write_text(path, json.dumps(asdict(record)))


def read(path: Path, kind: type[T]) -> T:
    """A dataclass from JSON. Raises DataError naming the file when it is not one."""
    try:
        return from_dict(kind, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError(f"no such file: {path}; run `crossflow t2i extract` again") from None
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"cannot read {path}: {' '.join(str(error).split())}; remove it and run `crossflow t2i extract` again"
        ) from error
