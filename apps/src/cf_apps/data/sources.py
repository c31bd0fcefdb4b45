"""Data by name: `shapes`, `emoji`, or a folder of the user's own pairs."""

from dataclasses import dataclass, field
from pathlib import Path

from cf_apps.data.bundled import load_emoji
from cf_apps.data.captioned import CaptionedImages, DataError
from cf_apps.data.captioned_shapes import CaptionedShapes
from cf_apps.data.pairs import SkippedSamples, load_pairs

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
    """Open `shapes` (drawn from `seed`), `emoji`, or a folder or parquet file of pairs.

    Raises DataError in one line when there is no such thing or nothing in it can be used.
    """
    if name == SHAPES:
        held_out = CaptionedShapes(2_048, image_size, seed + _HELD_OUT_SEED)
        return Source(name, CaptionedShapes(image_size=image_size, seed=seed), held_out)
    try:
        if name == EMOJI:
            return Source(name, load_emoji("train", image_size), load_emoji("val", image_size))
        pairs = load_pairs(Path(name), image_size=image_size)
    except DataError as error:
        if Path(name).exists() or name == EMOJI:
            raise
        raise DataError(f"{error} (or name a built-in set: {SHAPES}, {EMOJI})") from error
    return Source(str(Path(name).resolve()), pairs.train, pairs.val, pairs.skipped)
