"""Walks and sums in the space of x_0, where captions are points (CrossFlow section 5.1.3, Fig. 4, 5, 10 to 12)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from cf_flowcore import combine, interpolate
from jaxtyping import Float
from torch import Tensor

from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import SampleConfig
from cf_apps.t2i.sample import Sampler

AT_ONCE = 32  # pictures in one batch
NEXT = ","  # between two sums


@dataclass(frozen=True)
class Frames:
    """A moving picture. rests: the places of the frames to stay at."""

    images: Float[Tensor, "n 3 H W"]
    rests: list[int]


def draw_between(
    sampler: Sampler, captions: Sequence[str], count: int, how: SampleConfig, seed: int
) -> Float[Tensor, "n 3 H W"]:
    """`count` pictures on the line between each two neighbouring captions, row after row.

    All captions share one draw of the noise, so that only the meaning changes on the way.
    """
    if len(captions) < 2:
        raise ConfigError(f"interpolation needs at least two captions, got {len(captions)}")
    if count < 2:
        raise ConfigError(f"interpolation needs at least 2 pictures, got {count}")
    ends = _encode_alike(sampler, captions, how, seed)
    x_0 = torch.cat([interpolate(a, b, count) for a, b in pairwise(ends)])
    return _drawn(sampler, x_0, how)


def walk_frames(images: Float[Tensor, "n 3 H W"], count: int) -> Frames:
    """Rows of `count` as one way there and back, so that a GIF has no jump; it rests where rows begin and end."""
    rows = images.split(count)
    way = torch.cat([rows[0], *(row[1:] for row in rows[1:])])  # a row ends where the next begins
    there = range(len(way))
    order = [*there, *reversed(there[1:-1])]
    rests = [place for place, frame in enumerate(order) if frame % (count - 1) == 0]
    return Frames(way[order], rests)


def draw_sum(
    sampler: Sampler, plus: Sequence[str], minus: Sequence[str], how: SampleConfig, seed: int
) -> Float[Tensor, "n 3 H W"]:
    """The picture of each term, plus terms first, and last that of their signed sum.

    The sum is brought back to the mean and the spread of the first term: the model knows no other scale.
    """
    if not plus:
        raise ConfigError('arithmetic needs a first caption, as in: "a red circle" + "a blue square"')
    terms, total = _summed(sampler, plus, minus, how, seed)
    return _drawn(sampler, torch.cat([terms, total]), how)


def draw_way_to_sum(
    sampler: Sampler, plus: Sequence[str], minus: Sequence[str], count: int, how: SampleConfig, seed: int
) -> Float[Tensor, "n 3 H W"]:
    """`count` pictures on the line from the first term to the sum."""
    if count < 2:
        raise ConfigError(f"a way to the sum needs at least 2 pictures, got {count}")
    terms, total = _summed(sampler, plus, minus, how, seed)
    return _drawn(sampler, interpolate(terms[0], total[0], count), how)


def parse_sums(words: Sequence[str]) -> list[tuple[list[str], list[str]]]:
    """Sums as `parse_sum` reads them, with a comma between each two."""
    ends = [place for place, word in enumerate(words) if word == NEXT]
    starts = [0, *(place + 1 for place in ends)]
    return [parse_sum(words[start:end]) for start, end in zip(starts, [*ends, len(words)], strict=True)]


def parse_sum(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """["a", "+", "b", "-", "c"] -> (["a", "b"], ["c"]); ConfigError where signs and captions do not alternate."""
    signs = {"+": [], "-": []}
    expected = "caption"
    sign = "+"
    for word in words:
        is_sign = word in signs
        if is_sign != (expected == "sign"):
            raise ConfigError(f'expected a {expected}, got {word!r}; write: "a red circle" + "a blue square"')
        if is_sign:
            sign, expected = word, "caption"
        else:
            signs[sign].append(word)
            expected = "sign"
    if expected == "caption":
        raise ConfigError('the expression ends in a sign; write: "a red circle" + "a blue square"')
    return signs["+"], signs["-"]


def _summed(
    sampler: Sampler, plus: Sequence[str], minus: Sequence[str], how: SampleConfig, seed: int
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "1 c h w"]]:
    """x_0 of each term, and of their sum at the mean and the spread of the first."""
    if not plus:
        raise ConfigError('arithmetic needs a first caption, as in: "a red circle" + "a blue square"')
    terms = _encode_alike(sampler, [*plus, *minus], how, seed)
    one_by_one = list(terms.split(1))
    try:
        total = combine(one_by_one[: len(plus)], one_by_one[len(plus) :])
    except ValueError as error:
        raise ConfigError(f"nothing is left of {' + '.join(plus)} - {' - '.join(minus)}: {error}") from error
    first = terms[:1]
    return terms, total * first.std(correction=0) + first.mean()


def _encode_alike(
    sampler: Sampler, captions: Sequence[str], how: SampleConfig, seed: int
) -> Float[Tensor, "b c h w"]:
    """x_0 of each caption with the same noise for all. ConfigError for a model whose x_0 says nothing of it."""
    if sampler.model.config.from_noise:
        raise ConfigError(
            "this model starts from noise: there is nothing between its captions, and no sum of them"
        )
    draws = [torch.Generator().manual_seed(seed) for _ in captions]
    return sampler.encode(captions, draws, how.temperature)


def _drawn(sampler: Sampler, x_0: Float[Tensor, "b c h w"], how: SampleConfig) -> Float[Tensor, "b 3 H W"]:
    """The pictures of given x_0, on the CPU."""
    return torch.cat([sampler.decode(sampler.flow(part, how).x).cpu() for part in x_0.split(AT_ONCE)])
