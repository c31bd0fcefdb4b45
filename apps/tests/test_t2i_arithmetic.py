"""Walks and sums of captions begin and end where they should."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import SampleConfig
from cf_apps.t2i.arithmetic import draw_between, draw_sum, parse_sum
from cf_apps.t2i.sample import Sampler

sys.path.insert(0, str(Path(__file__).parent))
from t2i_tiny import dice, sampler

HOW = SampleConfig(scale=1.5, steps=3, solver="euler")
CLOSE = 1e-4
A, B, C = "a red circle", "a blue square", "two green circles"


@pytest.fixture(scope="module")
def it() -> Sampler:
    return sampler()


def picture(it: Sampler, caption: str, seed: int = 0, how: SampleConfig = HOW) -> torch.Tensor:
    return it.draw([caption], how, dice(seed))[0]


# ------------------------------------------------------------------------------------------------- parsing


@pytest.mark.parametrize(
    ("words", "plus", "minus"),
    [
        ("a", ["a"], []),
        ("a + b", ["a", "b"], []),
        ("a - b", ["a"], ["b"]),
        ("a + b - c", ["a", "b"], ["c"]),
        ("a - b + c - d", ["a", "c"], ["b", "d"]),
        ("a + a - a", ["a", "a"], ["a"]),
    ],
)
def test_signs_sort_the_captions(words, plus, minus):
    assert parse_sum(words.split()) == (plus, minus)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("a b", "expected a sign, got 'b'"),
        ("a + + b", r"expected a caption, got '\+'"),
        ("- a", "expected a caption, got '-'"),
        ("a +", "ends in a sign"),
        ("", "ends in a sign"),
    ],
)
def test_signs_and_captions_alternate(words, complaint):
    with pytest.raises(ConfigError, match=complaint):
        parse_sum(words.split())


# ------------------------------------------------------------------------------------------------- walks


def test_the_ends_of_a_walk_are_the_captions_own_pictures(it):
    walk = draw_between(it, [A, B], 5, HOW, seed=3)
    assert walk.shape == (5, 3, 16, 16)
    assert torch.allclose(walk[0], picture(it, A, 3), atol=CLOSE)
    assert torch.allclose(walk[-1], picture(it, B, 3), atol=CLOSE)


def test_a_walk_over_three_captions_is_two_walks_in_a_row(it):
    walk = draw_between(it, [A, B, C], 4, HOW, seed=0)
    assert len(walk) == 8
    assert torch.allclose(walk[:4], draw_between(it, [A, B], 4, HOW, seed=0), atol=CLOSE)
    assert torch.allclose(walk[4:], draw_between(it, [B, C], 4, HOW, seed=0), atol=CLOSE)


def test_the_middle_of_a_walk_is_the_picture_of_the_mean(it):
    x_0 = (it.encode([A], dice()) + it.encode([B], dice())) / 2
    middle = it.decode(it.flow(x_0, HOW).x)[0]
    assert torch.allclose(draw_between(it, [A, B], 3, HOW, seed=0)[1], middle, atol=CLOSE)


def test_a_walk_from_a_caption_to_itself_stands_still(it):
    walk = draw_between(it, [A, A], 3, HOW, seed=0)
    assert torch.allclose(walk, walk[:1].expand(3, -1, -1, -1), atol=CLOSE)


@pytest.mark.parametrize(
    ("captions", "count", "words"), [([A], 5, "two captions, got 1"), ([A, B], 1, "2 pictures, got 1")]
)
def test_a_walk_needs_two_ends(it, captions, count, words):
    with pytest.raises(ConfigError, match=f"at least {words}"):
        draw_between(it, captions, count, HOW, seed=0)


# ------------------------------------------------------------------------------------------------- sums


def test_the_terms_come_first_each_as_its_own_picture(it):
    images = draw_sum(it, [A, B], [C], HOW, seed=2)
    assert len(images) == 4
    for image, caption in zip(images, (A, B, C), strict=False):
        assert torch.allclose(image, picture(it, caption, 2), atol=CLOSE)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_adding_and_taking_away_the_same_gives_the_first_caption_back(it, temperature):
    images = draw_sum(it, [A, B], [B], replace(HOW, temperature=temperature), seed=0)
    assert torch.allclose(images[-1], images[0], atol=1e-3)


def test_a_caption_alone_is_its_own_sum(it):
    images = draw_sum(it, [A], [], HOW, seed=0)
    assert torch.allclose(images[1], images[0], atol=1e-3)


def test_signs_matter_and_order_within_a_sign_does_not(it):
    def total(plus, minus):
        return draw_sum(it, plus, minus, HOW, seed=0)[-1]

    assert not torch.allclose(total([A, B], []), total([A], [B]), atol=1e-2)
    assert torch.allclose(total([A, B, C], []), total([A, C, B], []), atol=1e-3)


def test_the_sum_has_the_mean_and_spread_of_the_first_term(it):
    seen = []

    class Spy(Sampler):
        def flow(self, x_0, how):
            seen.append(x_0)
            return super().flow(x_0, how)

    draw_sum(Spy(it.model), [A, B], [C], HOW, seed=0)
    first, total = seen[0][0], seen[0][-1]
    assert total.mean().item() == pytest.approx(first.mean().item(), abs=1e-5)
    assert total.std().item() == pytest.approx(first.std().item(), rel=1e-4)


def test_a_sum_without_a_first_caption_is_refused(it):
    with pytest.raises(ConfigError, match="needs a first caption"):
        draw_sum(it, [], [A], HOW, seed=0)


def test_a_caption_minus_itself_leaves_nothing_to_draw(it):
    with pytest.raises(ConfigError, match="nothing is left of a red circle - a red circle"):
        draw_sum(it, [A], [A], HOW, seed=0)
