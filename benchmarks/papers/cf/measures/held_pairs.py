"""Held-out pairs of pictures and captions in two halves: to choose the scale of guidance by, and to report."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from cf_apps.data.captioned import DataError, unit_hash
from cf_apps.data.pairs import UnusablePair, decoded
from cf_apps.data.shards.records import is_shards
from cf_apps.data.sources import EMOJI, SHAPES, open_source, open_stream
from cf_apps.engine.errors import ConfigError
from cf_apps.t2i.sample import Sampler
from jaxtyping import UInt8
from torch import Tensor

from cf.scale import Trained

LEAST = 2  # pictures, of which a Fréchet distance needs a spread
BLOCK = 256
Keyed = tuple[str, UInt8[np.ndarray, "3 s s"], str]


@dataclass(frozen=True)
class Pairs:
    """`captions[i]` is of `images[i]`."""

    images: UInt8[Tensor, "n 3 s s"]
    captions: list[str]

    def __len__(self) -> int:
        return len(self.captions)

    def those(self, places: list[int]) -> "Pairs":
        return Pairs(self.images[places], [self.captions[place] for place in places])


@dataclass(frozen=True)
class Halves:
    """val: to choose by. test: to report."""

    val: Pairs
    test: Pairs


def held_pairs(trained: Trained, sampler: Sampler) -> Halves:
    """Of what the run was not trained on, as many as the scale asks for, whose captions the model can read whole."""
    scale = trained.scale
    halves = _halves(
        trained.data, scale.held_out, sampler.model.config.image_size, scale.searched, scale.scored
    )
    return Halves(_readable(halves.val, sampler), _readable(halves.test, sampler))


@cache
def _halves(data: str, held_out: str | None, image_size: int, val: int, test: int) -> Halves:
    """The side of a pair depends on its picture alone."""
    if held_out is None and is_shards(data):
        raise ConfigError(
            f"{data} holds shards, no pictures to compare with; pass --held-out with pairs that were not trained on"
        )
    most, found = {True: val, False: test}, {True: [], False: []}
    for key, image, caption in _own(data, image_size) if held_out is None else _given(held_out, image_size):
        side = unit_hash(key) < 0.5
        if len(found[side]) < most[side]:
            found[side].append((image, caption))
        if all(len(found[side]) == most[side] for side in most):
            break
    for side, name in ((True, "val"), (False, "test")):
        if len(found[side]) < LEAST:
            raise DataError(
                f"{held_out or data} leaves {len(found[side])} held-out pairs for {name}; a distance needs at least "
                f"{LEAST}, so give more pairs"
            )
    return Halves(_pairs(found[True]), _pairs(found[False]))


def _own(data: str, image_size: int) -> Iterator[Keyed]:
    """The half that training leaves out."""
    source = open_source(data, image_size).val
    for start in range(0, len(source), BLOCK):
        batch = source.batch(torch.arange(start, min(start + BLOCK, len(source))))
        for image, caption in zip(batch.images.numpy(), batch.captions, strict=True):
            yield hashlib.sha256(image.tobytes()).hexdigest(), image, caption


def _given(held_out: str, image_size: int) -> Iterator[Keyed]:
    """All pairs of a set that nobody trains on, each with its first caption; unusable ones are passed over."""
    if held_out in (SHAPES, EMOJI):
        yield from _own(held_out, image_size)
        return
    for pair in open_stream(held_out, image_size):
        try:
            usable = decoded(pair, image_size)
        except UnusablePair:
            continue
        yield usable.key, usable.image, pair.captions[0]


def _pairs(found: list[tuple[np.ndarray, str]]) -> Pairs:
    return Pairs(torch.from_numpy(np.stack([image for image, _ in found])), [caption for _, caption in found])


def _readable(pairs: Pairs, sampler: Sampler) -> Pairs:
    long = set(sampler.model.language.too_long(pairs.captions))
    return pairs.those([place for place in range(len(pairs)) if place not in long]) if long else pairs
