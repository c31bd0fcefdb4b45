"""Sums of captions of real pictures, Fig. 5: CLIP says whether the picture of a sum shows what the sum means."""

import random
from dataclasses import replace

import torch
from cf_apps.superres.degrade import to_bytes
from cf_apps.t2i.drawing.arithmetic import draw_sum
from cf_apps.t2i.scoring.geneval import CONVENTION
from cf_eval import ClipScore
from jaxtyping import Float
from torch import Tensor

from cf.measures.guidance import Numbers, sampler_of
from cf.measures.pairs import clip_encoder
from cf.measures.walks import SUMS
from cf.scale import Trained

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "black", "white")
THINGS = ("heart", "circle", "square", "book", "car", "apple", "bird", "umbrella")


def arithmetic(trained: Trained) -> dict[str, Numbers]:
    """L("a red heart") + L("a blue book") - L("a red book"): is the picture more of a blue heart than of a red one?

    sum: of the sum. first: of the first term's own picture. said: of the words themselves. Without --clip nobody can
    tell, and there is no number.
    """
    if trained.scale.judges.clip is None:
        return {"sum": {}, "first": {}, "said": {}}
    sampler = sampler_of(trained)
    how, rng = replace(sampler.model.config.sample, scale=1.0), random.Random(0)
    seen: dict[str, list[Tensor]] = {"sum": [], "first": [], "said": []}
    wanted, other = [], []
    for _ in range(SUMS):
        (ours, theirs), (thing, beside) = rng.sample(COLOURS, 2), rng.sample(THINGS, 2)
        wanted.append(f"a {theirs} {thing}")
        other.append(f"a {ours} {thing}")
        plus, minus = [other[-1], f"a {theirs} {beside}"], [f"a {ours} {beside}"]
        first, *_, total = draw_sum(sampler, plus, minus, how, trained.seed)
        words = sampler.draw([wanted[-1]], how, torch.Generator().manual_seed(trained.seed))[0]
        for name, image in (("sum", total), ("first", first), ("said", words)):
            seen[name].append(image)
    return {
        name: {"right": closer(torch.stack(images), wanted, other, trained)} for name, images in seen.items()
    }


def closer(images: Float[Tensor, "n 3 s s"], wanted: list[str], other: list[str], trained: Trained) -> float:
    """Of pictures that CLIP finds closer to what is wanted."""
    encoder, pictures, scores = clip_encoder(trained.scale.judges, trained.device), to_bytes(images), []
    for captions in (wanted, other):
        score = ClipScore(encoder, CONVENTION)
        score.add_batch(pictures, captions)
        scores.append(score.per_pair())
    return sum(a > b for a, b in zip(*scores, strict=True)) / len(wanted)
