"""Text to image, as the commands of every task see it."""

from cf_apps.data.sources import EMOJI, SHAPES, open_source
from cf_apps.engine.commands.app import App, Columns, Pictures, Scoring
from cf_apps.t2i.config import T2IConfig
from cf_apps.t2i.drawing.sheets import BETWEEN, SHOWN, sample_sheet, some_pairs, walk_sheet
from cf_apps.t2i.evaluate import score_composition, score_pairs
from cf_apps.t2i.model import SAMPLING_PARTS
from cf_apps.t2i.prepare import prepare
from cf_apps.t2i.presets import PRESETS
from cf_apps.t2i.sample import Sampler


def score(sampler: Sampler, scoring: Scoring) -> Columns:
    """Composition accuracy where the pictures can be read back, distances where they cannot."""
    how, line, seed = scoring.how, scoring.line, scoring.seed
    if scoring.data == SHAPES:
        return {"score": score_composition(sampler, how, line, seed=seed, split=scoring.split).table()}
    source = open_source(scoring.data, sampler.model.config.image_size)
    return {"score": score_pairs(sampler, source.val, how, line, seed=seed)}


def show(sampler: Sampler, scoring: Scoring) -> Pictures:
    """Captions, drawn: of shapes some that say much and little, of pairs seen and held-out ones beside the truth."""
    how, seed = scoring.how, scoring.seed
    if scoring.data == SHAPES:
        pictures, between = {"samples": sample_sheet(sampler, SHOWN, how, seed)}, BETWEEN
    else:
        source = open_source(scoring.data, sampler.model.config.image_size)
        seen, held = some_pairs(source.train), some_pairs(source.val)
        pictures = {
            "samples": sample_sheet(sampler, seen.captions, how, seed, seen.images),
            "samples_held_out": sample_sheet(sampler, held.captions, how, seed, held.images),
        }
        between = seen.captions[:3]
    if sampler.model.config.from_noise or len(between) < 2:  # nothing lies between two captions
        return pictures
    return pictures | {"interpolation": walk_sheet(sampler, between, how, seed)}


APP: App[T2IConfig, Sampler] = App(
    name="t2i",
    data=f"{SHAPES}, {EMOJI}, a folder of images with metadata.jsonl, .csv, same-name .txt, or parquet, .tar, .jsonl "
    "or .csv files, hub:OWNER/NAME, or shards of `t2i extract`",
    presets=PRESETS,
    prepare=prepare,
    parts=SAMPLING_PARTS,
    open=Sampler.from_run,
    score=score,
    show=show,
)
