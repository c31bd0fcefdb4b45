"""Data by name: `shapes`, `emoji`, the user's own pairs, or a set of the Hugging Face hub."""

from dataclasses import dataclass, field
from pathlib import Path

from cf_apps.data.bundled import load_emoji
from cf_apps.data.captioned import CaptionedImages, DataError
from cf_apps.data.captioned_shapes import CaptionedShapes
from cf_apps.data.pair_layouts import open_pairs
from cf_apps.data.pairs import SkippedSamples, load_pairs
from cf_apps.data.shards.records import PLAN, Plan, is_shards, read
from cf_apps.data.streams.built_in import built_in_source
from cf_apps.data.streams.raw import PairSource
from cf_apps.data.streams.rows import HUB, hub_source

SHAPES, EMOJI = "shapes", "emoji"
_HELD_OUT_SEED = 1_000_000  # scenes of the validation half; training seeds are small


@dataclass(frozen=True)
class Source:
    """A data set as the tasks see it. skipped: samples that could not be used, for the run's log."""

    name: str
    train: CaptionedImages
    val: CaptionedImages
    skipped: SkippedSamples = field(default_factory=SkippedSamples)


def open_source(name: str, image_size: int, seed: int = 0) -> Source:
    """Open `shapes` (drawn from `seed`), `emoji`, or pairs in any layout of `pair_layouts`, or `hub:OWNER/NAME`.

    Raises DataError in one line when there is no such thing, nothing in it can be used, or it is shards, which hold no
    pictures to look at.
    """
    if name == SHAPES:
        held_out = CaptionedShapes(2_048, image_size, seed + _HELD_OUT_SEED)
        return Source(name, CaptionedShapes(image_size=image_size, seed=seed), held_out)
    if is_shards(name):
        source = read(Path(name) / PLAN, Plan).source
        raise DataError(
            f"{name} holds shards, no pictures: `crossflow t2i train` reads them; give what they were made of here, "
            f"--data {source}"
        )
    try:
        if name == EMOJI:
            return Source(name, load_emoji("train", image_size), load_emoji("val", image_size))
        pairs = load_pairs(open_stream(name, image_size, seed), image_size=image_size)
    except DataError as error:
        if _is_there(name) or name == EMOJI:
            raise
        raise DataError(f"{error} (or name a built-in set: {SHAPES}, {EMOJI})") from error
    return Source(pairs.name, pairs.train, pairs.val, pairs.skipped)


def open_stream(name: str, image_size: int, seed: int = 0) -> PairSource:
    """The same sources as raw pairs, one after another: of any size, for extraction. Of a built-in set, what it trains.

    Raises DataError when there is no such thing.
    """
    if name == SHAPES:
        return built_in_source(name, CaptionedShapes(image_size=image_size, seed=seed))
    if name == EMOJI:
        return built_in_source(name, load_emoji("train", image_size))
    return hub_source(name) if name.startswith(HUB) else open_pairs(Path(name))


def _is_there(name: str) -> bool:
    return name.startswith(HUB) or Path(name).exists()
