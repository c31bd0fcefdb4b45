"""`crossflow t2i extract`: features and latents of captioned images, once, into shards that training reads.

Any number of processes share the work: each block of the source becomes one shard, made by one of them. A process that
is killed leaves whole shards behind, and the next one goes on with those that are missing.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from cf_apps.data.pairs import VAL_FRACTION, UnusablePair, decoded
from cf_apps.data.shards.reading import damaged
from cf_apps.data.shards.records import PLAN, SKIPPED, Manifest, Plan, begin, read
from cf_apps.data.shards.writing import Part, ShardWriter
from cf_apps.data.sources import open_stream
from cf_apps.data.streams.raw import PairSource, PairUnit
from cf_apps.engine.checks import require_count
from cf_apps.engine.codecs import fitted
from cf_apps.engine.commands.recipe import named, overridden
from cf_apps.engine.run import command_line, commit, versions
from cf_apps.engine.watching.progress import Progress
from cf_apps.t2i.config import T2IConfig
from cf_apps.t2i.extract.frozen import FrozenParts
from cf_apps.t2i.prepare import CODEC_SAMPLE
from cf_apps.t2i.presets import PRESETS

SHARD_SIZE = 4_096  # 0.5 GB of the paper's features


@dataclass(frozen=True)
class ExtractRequest:
    """What the command line asks for.

    data: as for training. flip: mirror images as well. pictures: keep the pictures too, as presets need that look at
    them. verify: read every finished shard first, and make the damaged ones anew.
    """

    data: str
    out: Path
    preset: str
    flip: bool = False
    pictures: bool = False
    shard_size: int = SHARD_SIZE
    part: Part = field(default_factory=Part)
    batch_size: int = 64
    verify: bool = False
    seed: int = 0
    overrides: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Extraction:
    """What a process did. manifest: None while other processes still have shards to make: `missing` of them.

    made: shards of this process. damaged: what --verify found, as (shard, reason).
    """

    out: Path
    made: int
    manifest: Manifest | None
    missing: int
    skipped: int
    damaged: tuple[tuple[str, str], ...] = ()

    def said(self) -> list[str]:
        """For people."""
        lines = [f"shard {name} was damaged and is made anew: {reason}" for name, reason in self.damaged]
        if self.skipped:
            lines.append(f"{self.skipped} pairs could not be used; {self.out / SKIPPED} lists them")
        found = self.manifest
        if found is None:
            return [
                *lines,
                f"{self.made} shards made; {self.missing} are left to other processes, or to another start",
            ]
        if found.cut:
            lines.append(
                f"{found.cut:,} of {found.captions:,} captions are longer than the {found.plan.max_tokens} tokens the "
                "model reads and are cut; to read more raise language.max_tokens"
            )
        return [
            *lines,
            f"{found.samples:,} samples with {found.captions:,} captions in {len(found.shards)} shards, "
            f"{found.bytes / found.samples / 1000:.1f} kB a sample; train with --data {self.out}",
        ]


def extract(request: ExtractRequest, device: torch.device, line: Progress) -> Extraction:
    """Make this process's share of the shards that are missing, and the manifest when none is missing any more.

    Raises ConfigError, DataError, RunError in one line for what cannot be read, written or made to fit.
    """
    require_count("--shard-size", request.shard_size, 1)
    require_count("--batch-size", request.batch_size, 1)
    config = overridden(named(PRESETS, request.preset), request.overrides or {}).model
    source = open_stream(request.data, config.image_size, request.seed)
    config = _fitted(config, source, request.out)
    pictures = request.pictures or config.needs_images
    parts = FrozenParts.load(config, device, request.flip, pictures)
    writer = ShardWriter(request.out, begin(request.out, _plan(request, source, parts)))
    found = _remove_damaged(writer) if request.verify else ()
    made = sum(_unit(request, writer, parts, number, unit, line) for number, unit in enumerate(source.units))
    manifest = writer.finish()
    blocks, units = writer.missing()
    return Extraction(request.out, made, manifest, len(blocks) + len(units), writer.list_skipped(), found)


def _plan(request: ExtractRequest, source: PairSource, parts: FrozenParts) -> Plan:
    config, language = parts.config, parts.language
    return Plan(
        source=source.name,
        contents=source.contents,
        units=len(source.units),
        shard_size=request.shard_size,
        image_size=config.image_size,
        latent=config.latent,
        language=parts.describe_language(),
        codec=parts.describe_codec(),
        width=0 if language is None else language.width,
        max_tokens=config.language.max_tokens,
        flip=parts.mirrored,
        pictures=parts.pictures,
        held_out=VAL_FRACTION,
        made_with={"versions": versions(), "commit": commit(), "command": command_line()},
    )


def _unit(
    request: ExtractRequest,
    writer: ShardWriter,
    parts: FrozenParts,
    number: int,
    unit: PairUnit,
    line: Progress,
) -> int:
    """Make this process's missing shards of one unit; returns how many."""
    units, part = writer.plan.units, request.part
    known = writer.ended(number)
    if not part.takes_unit(number, units):
        return 0

    def is_mine(block: int) -> bool:
        return part.takes_block(number, units, block) and not writer.done(number, block)

    if known is not None and not any(is_mine(block) for block in range(known)):
        return 0
    block = next(block for block in range(10**9) if not writer.done(number, block))
    pairs, made = unit.read(block * request.shard_size), 0
    while (first := next(pairs, None)) is not None:
        stretch = chain([first], islice(pairs, request.shard_size - 1))
        if is_mine(block):
            where = f"unit {number + 1} of {units}, shard {block + 1} of it"
            show = partial(_show, line, number / units, where)
            found = parts.content(stretch, request.batch_size, show)
            writer.write_shard(number, block, found.content, found.skipped, found.cut)
            made += 1
        else:
            deque(stretch, maxlen=0)  # passed over
        block += 1
    writer.end_unit(number, block)
    return made


def _show(line: Progress, done: float, where: str, pairs: int) -> None:
    line.show(done, f"{where}, {pairs} pairs")


def _fitted(config: T2IConfig, source: PairSource, out: Path) -> T2IConfig:
    """The config with what is measured on the source's first pictures; once, by the process that writes the plan."""
    if config.codec.name != "patch-dct" or config.codec.mean is not None:
        return config
    if (out / PLAN).is_file():
        codec = read(out / PLAN, Plan).codec
        if codec["name"] == config.codec.name:
            return replace(
                config, codec=replace(config.codec, mean=tuple(codec["mean"]), std=tuple(codec["std"]))
            )
    return replace(
        config, codec=fitted(config.codec, torch.stack(list(_first_pictures(source, config.image_size))))
    )


def _first_pictures(source: PairSource, image_size: int) -> Iterator[torch.Tensor]:
    for pair in islice(source, CODEC_SAMPLE):
        try:
            yield torch.from_numpy(decoded(pair, image_size).image)
        except UnusablePair:
            continue


def _remove_damaged(writer: ShardWriter) -> tuple[tuple[str, str], ...]:
    """Read all finished shards; those that are not what was written are forgotten, so that they are made again."""
    found = [
        (record.name, reason)
        for record in writer.records()
        if record.samples and (reason := damaged(writer.folder, record.name, record.sha256)) is not None
    ]
    for name, _ in found:
        writer.remove(name)
    return tuple(found)
