"""Walks and sums of captions begin and end where they should."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import SampleConfig
from cf_apps.t2i.drawing.arithmetic import (
    AT_ONCE,
    draw_between,
    draw_sum,
    draw_way_to_sum,
    parse_sum,
    parse_sums,
    walk_frames,
)
from cf_apps.t2i.drawing.sheets import IN_A_ROW, sum_sheet, way_sheet
from cf_apps.t2i.sample import Sampler

sys.path.insert(0, str(Path(__file__).parent))
from t2i_tiny import baseline, dice, sampler

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
        def flow(self, x_0, how, captions=None):
            seen.append(x_0)
            return super().flow(x_0, how, captions)

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


@pytest.mark.parametrize(
    ("words", "sums"),
    [
        ("a", [(["a"], [])]),
        ("a + b , c - d", [(["a", "b"], []), (["c"], ["d"])]),
        ("a , a , a + a", [(["a"], []), (["a"], []), (["a", "a"], [])]),
    ],
)
def test_a_comma_stands_between_two_sums(words, sums):
    assert parse_sums(words.split()) == sums


@pytest.mark.parametrize("words", ["a ,", ", a", "a , , b", "a + , b"])
def test_a_comma_without_a_sum_on_both_sides_is_refused(words):
    with pytest.raises(ConfigError, match=r"expression ends in a sign|expected a"):
        parse_sums(words.split())


# ------------------------------------------------------------------------------------------------- mean or sample


def test_the_mean_x_0_needs_no_seed_and_a_sample_does(it):
    mean = replace(HOW, temperature=0.0)
    for draw in (
        lambda how, seed: draw_between(it, [A, B], 3, how, seed),
        lambda how, seed: draw_sum(it, [A, B], [C], how, seed),
        lambda how, seed: draw_way_to_sum(it, [A, B], [C], 3, how, seed),
    ):
        assert torch.equal(draw(mean, 1), draw(mean, 2))
        assert not torch.equal(draw(HOW, 1), draw(HOW, 2))


def test_the_mean_of_the_mean_walk_is_the_middle_of_the_encoders_means(it):
    x_0 = sum(it.model.encode_text([text]).mean for text in (A, B)) / 2
    middle = it.decode(it.flow(x_0, HOW).x)[0]
    walk = draw_between(it, [A, B], 3, replace(HOW, temperature=0.0), seed=0)
    assert torch.allclose(walk[1], middle, atol=CLOSE)


# ------------------------------------------------------------------------------------------------- ways as GIFs


def test_the_way_to_a_sum_goes_from_the_first_term_to_the_sum(it):
    way = draw_way_to_sum(it, [A, B], [C], 5, HOW, seed=2)
    sheet = draw_sum(it, [A, B], [C], HOW, seed=2)
    assert len(way) == 5
    assert torch.allclose(way[0], sheet[0], atol=CLOSE)
    assert torch.allclose(way[-1], sheet[-1], atol=CLOSE)
    assert not torch.allclose(way[2], sheet[0], atol=1e-2)
    with pytest.raises(ConfigError, match="at least 2 pictures, got 1"):
        draw_way_to_sum(it, [A], [], 1, HOW, seed=0)


def numbered(rows: list[list[int]]) -> torch.Tensor:
    return torch.tensor([n for row in rows for n in row]).float().view(-1, 1, 1, 1).expand(-1, 3, 2, 2) / 100


@pytest.mark.parametrize(
    ("rows", "frames", "rests"),
    [
        ([[0, 1, 2, 3]], [0, 1, 2, 3, 2, 1], [0, 3]),
        ([[0, 1, 2], [2, 3, 4]], [0, 1, 2, 3, 4, 3, 2, 1], [0, 2, 4, 6]),
        ([[0, 1], [1, 2], [2, 3]], [0, 1, 2, 3, 2, 1], [0, 1, 2, 3, 4, 5]),
        ([[0, 1]], [0, 1], [0, 1]),
    ],
)
def test_a_way_goes_there_and_back_and_rests_at_the_captions(rows, frames, rests):
    moving = walk_frames(numbered(rows), len(rows[0]))
    assert (moving.images[:, 0, 0, 0] * 100).round().int().tolist() == frames
    assert moving.rests == rests


def test_neighbouring_frames_of_a_loop_are_nearer_than_its_ends(it):
    images = draw_between(it, [A, B], 9, HOW, seed=0)
    loop = walk_frames(images, 9).images
    steps = (loop - loop.roll(1, 0)).flatten(1).norm(dim=1)  # the last frame leads to the first
    assert steps.max() < (images[0] - images[-1]).norm()


def test_long_ways_are_drawn_a_few_at_a_time(it, monkeypatch):
    sizes = []

    class Spy(Sampler):
        def flow(self, x_0, how, captions=None):
            sizes.append(len(x_0))
            return super().flow(x_0, how, captions)

    walk = draw_between(Spy(it.model), [A, B], AT_ONCE + 5, HOW, seed=0)
    assert sizes == [AT_ONCE, 5]
    assert torch.allclose(walk[-1], picture(it, B), atol=CLOSE)


def test_the_baseline_has_no_captions_to_walk_between():
    noise = Sampler(baseline())
    for draw in (
        lambda: draw_between(noise, [A, B], 3, HOW, seed=0),
        lambda: draw_sum(noise, [A], [B], HOW, seed=0),
        lambda: draw_way_to_sum(noise, [A], [B], 3, HOW, seed=0),
    ):
        with pytest.raises(ConfigError, match="starts from noise"):
            draw()


# ------------------------------------------------------------------------------------------------- sheets


def test_a_row_for_each_way_and_a_long_one_in_a_square():
    ways = way_sheet(torch.zeros(10, 3, 96, 96), [A, B, C], 5)
    assert ways.size == (8 + 104 + 5 * 104, 8 + 2 * 104)
    square = way_sheet(torch.zeros(IN_A_ROW + 13, 3, 96, 96), [A, B], IN_A_ROW + 13)
    assert square.width == 8 + 5 * 104


def test_sums_of_different_lengths_each_have_a_row(it):
    sums = [([A, B], [C]), ([A], [])]
    rows = [draw_sum(it, plus, minus, HOW, seed=0) for plus, minus in sums]
    sheet = sum_sheet(rows, sums)
    assert sheet.width == 8 + 4 * 104
    assert sheet.height == sum(sum_sheet([row], [one]).height for row, one in zip(rows, sums, strict=True))
