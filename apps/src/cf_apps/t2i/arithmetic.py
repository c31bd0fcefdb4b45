"""Walks and sums in the space of x_0, where captions are points (CrossFlow section 5.1.3)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from cf_flowcore import combine, interpolate
from jaxtyping import Float
from torch import Tensor

from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import SampleConfig
from cf_apps.t2i.sample import Sampler


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
    return sampler.decode(sampler.flow(x_0, how).x).cpu()


def draw_sum(
    sampler: Sampler, plus: Sequence[str], minus: Sequence[str], how: SampleConfig, seed: int
) -> Float[Tensor, "n 3 H W"]:
    """The picture of each term, plus terms first, and last that of their signed sum.

    The sum is brought back to the mean and the spread of the first term: the model knows no other scale.
    """
    if not plus:
        raise ConfigError('arithmetic needs a first caption, as in: "a red circle" + "a blue square"')
    terms = _encode_alike(sampler, [*plus, *minus], how, seed)
    one_by_one = list(terms.split(1))
    try:
        total = combine(one_by_one[: len(plus)], one_by_one[len(plus) :])
    except ValueError as error:
        raise ConfigError(f"nothing is left of {' + '.join(plus)} - {' - '.join(minus)}: {error}") from error
    first = terms[:1]
    total = total * first.std(correction=0) + first.mean()
    return sampler.decode(sampler.flow(torch.cat([terms, total]), how).x).cpu()


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


def _encode_alike(
    sampler: Sampler, captions: Sequence[str], how: SampleConfig, seed: int
) -> Float[Tensor, "b c h w"]:
    """x_0 of each caption with the same noise for all."""
    draws = [
        sampler.encode([text], torch.Generator().manual_seed(seed), how.temperature) for text in captions
    ]
    return torch.cat(draws)
