"""Text to image, as the commands of every task see it."""

import torch

from cf_apps.data.sources import EMOJI, SHAPES, open_source
from cf_apps.engine.app import App, Columns, Pictures, Scoring
from cf_apps.engine.render import image_grid
from cf_apps.t2i.config import T2IConfig
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
    """Held-out captions, drawn, beside the true pictures."""
    data = open_source(scoring.data, sampler.model.config.image_size).val
    pairs = data.batch(torch.linspace(0, len(data) - 1, min(16, len(data))).long())
    drawn = sampler.draw(pairs.captions, scoring.how, torch.Generator().manual_seed(scoring.seed))
    both = torch.stack([drawn, pairs.images.float() / 255], 1).flatten(0, 1)
    under = [text for caption in pairs.captions for text in (caption, "the true picture")]
    return {"samples": image_grid(both, 8, captions=under)}


APP: App[T2IConfig, Sampler] = App(
    name="t2i",
    about="text to image",
    data=f"{SHAPES}, {EMOJI}, or a folder of images with metadata.jsonl, .csv, same-name .txt, or parquet",
    presets=PRESETS,
    prepare=prepare,
    parts=SAMPLING_PARTS,
    open=Sampler.from_run,
    score=score,
    show=show,
)
