"""Figures 4 and 5 in numbers: how even the way between captions is, and whether sums of them mean what they say."""

import random
from collections.abc import Sequence
from dataclasses import replace

import torch
from cf_apps.data.captioned_shapes import shapes_reader
from cf_apps.data.shapes_scene import BACKGROUNDS, COLOURS, SHAPES
from cf_apps.engine.flow import SampleConfig
from cf_apps.t2i.drawing.arithmetic import draw_between, draw_sum
from cf_apps.t2i.sample import Sampler
from cf_eval import Expectation, Wanted, satisfies
from jaxtyping import Float
from torch import Tensor

from cf.measures.guidance import Numbers, sampler_of
from cf.measures.held_out import held_out
from cf.scale import Trained

PAIRS, FRAMES = 32, 9
SUMS = 48
SIDES = {"on the left": (0.0, 0.40), "on the right": (0.60, 1.0)}


def walk(trained: Trained) -> dict[str, Numbers]:
    """Between 32 pairs of val captions, nine pictures each.

    largest_step: the largest of the eight steps from picture to picture as a share of them all, mean over the pairs.
    0.125 is a way of even steps, 1 a picture that switches at once. detour: the way's length over its ends' distance.
    """
    sampler = sampler_of(trained)
    held = held_out("val", trained.scale.val, sampler.model.config.image_size)
    return {"walk": walked(sampler, held.texts, trained.seed)}


def walked(sampler: Sampler, captions: Sequence[str], seed: int) -> Numbers:
    """The numbers of `walk` for captions in an order of its own, two by two."""
    texts, how = list(captions), _unguided(sampler)
    random.Random(0).shuffle(texts)
    shares, detours = [], []
    for a, b in list(zip(texts[::2], texts[1::2], strict=False))[:PAIRS]:
        frames = draw_between(sampler, [a, b], FRAMES, how, seed)
        share, detour = unevenness(frames)
        shares.append(share)
        detours.append(detour)
    return {"largest_step": sum(shares) / len(shares), "detour": sum(detours) / len(detours)}


def unevenness(frames: Float[Tensor, "n 3 s s"]) -> tuple[float, float]:
    """(the largest step from picture to picture as a share of all of them, their sum over the distance of the ends)"""
    steps = (frames[1:] - frames[:-1]).flatten(1).norm(dim=1)
    return (steps.max() / steps.sum()).item(), (steps.sum() / (frames[-1] - frames[0]).norm()).item()


def arithmetic(trained: Trained) -> dict[str, Numbers]:
    """L("a red circle") + L("a blue square") - L("a red square"), all at one place: is a blue circle drawn there?

    sum: of the sum. first: how often the first term's own picture would count as that. said: of the words themselves.
    """
    sampler = sampler_of(trained)
    how, rng = _unguided(sampler), random.Random(0)
    right = {"sum": 0, "first": 0, "said": 0}
    for _ in range(SUMS):
        (ours, theirs), (shape, other) = rng.sample(list(COLOURS), 2), rng.sample(list(SHAPES), 2)
        side, ground = rng.choice(list(SIDES)), rng.choice(list(BACKGROUNDS))

        def said(colour: str, shape: str, side: str = side, ground: str = ground) -> str:
            return f"a large {colour} {shape} {side} on a {ground} background"

        plus, minus = [said(ours, shape), said(theirs, other)], [said(ours, other)]
        first, *_, total = draw_sum(sampler, plus, minus, how, trained.seed)
        words = sampler.draw([said(theirs, shape)], how, torch.Generator().manual_seed(trained.seed))[0]
        wanted = Expectation("colours", (Wanted(shape, theirs, x=SIDES[side]),), background=ground)
        for name, image in (("sum", total), ("first", first), ("said", words)):
            right[name] += _shows(image, wanted)
    return {name: {"right": count / SUMS} for name, count in right.items()}


def _shows(image: Float[Tensor, "3 s s"], wanted: Expectation) -> bool:
    return satisfies(shapes_reader()(image[None])[0], wanted)


def _unguided(sampler: Sampler) -> SampleConfig:
    return replace(sampler.model.config.sample, scale=1.0)
