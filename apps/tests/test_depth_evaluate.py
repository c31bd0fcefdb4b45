"""Depth scores: baselines against a plain fit, columns against cf-eval, pictures of any size."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cf_apps.data.depth_pairs import DepthArrays, Foreground, ShapesDepth
from cf_apps.data.depth_sets import by_name
from cf_apps.data.depth_sets.by_name import OWN, Scored
from cf_apps.depth import baselines
from cf_apps.depth.baselines import fitted
from cf_apps.depth.evaluate import ENCODER, FLOW, MEAN, score, scores, show
from cf_apps.engine.commands.app import Scoring
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.watching.progress import Silence
from cf_eval.depth.errors import depth_errors

sys.path.insert(0, str(Path(__file__).parent))
from depth_layouts import write_own
from depth_tiny import dice, sampler

HOW = SampleConfig(scale=1.0, steps=2)


@pytest.fixture(autouse=True)
def _few_scenes(monkeypatch):
    monkeypatch.setattr(by_name, "HELD_OUT_SCENES", 9)
    monkeypatch.setattr(baselines, "FITTED_ON", 70)  # two batches, the second one short


def test_the_encoder_s_baseline_is_the_least_squares_line_over_the_scored_pixels():
    made, train = sampler(), Foreground(ShapesDepth.drawn(100, 16, 0))
    found = fitted(made, train)
    batch = train.batch(torch.arange(70))
    x, y = made.means(batch.images)[batch.valid], batch.depth[batch.valid]
    scale, shift = np.polyfit(x.double().numpy(), y.double().numpy(), 1)
    np.testing.assert_allclose([found.scale, found.shift], [scale, shift], rtol=1e-4)
    guess = found.encoder_alone(made, batch.images[:3])
    torch.testing.assert_close(guess, found.scale * made.means(batch.images[:3]) + found.shift)


def test_the_pixel_mean_is_the_mean_over_the_pictures_that_know_that_pixel():
    made, train = sampler(), Foreground(ShapesDepth.drawn(100, 16, 0))
    found = fitted(made, train)
    batch = train.batch(torch.arange(70))
    for i in range(16):
        for j in range(16):
            here = batch.depth[:, i, j][batch.valid[:, i, j]]
            expected = here.mean() if len(here) else batch.depth[batch.valid].mean()
            assert abs(found.mean_map[i, j] - expected) < 1e-5
    assert found.pixel_mean(batch.images[:2]).shape == (2, 16, 16)


def test_scores_are_cf_eval_s_at_the_truth_s_own_size():
    g = dice(5)
    truth = 1 + 3 * torch.rand(4, 33, 47, generator=g)
    valid = torch.rand(4, 33, 47, generator=g) < 0.7
    images = torch.randint(0, 256, (4, 3, 33, 47), generator=g, dtype=torch.uint8)
    scored = Scored(DepthArrays(images, truth, valid, "toy"), OWN)
    found = scores(scored, (16, 16), {"two": lambda x, part: torch.full((len(x), 16, 16), 2.0)}, Silence())[
        "two"
    ]
    by_hand = [
        depth_errors(torch.full_like(t[v], 2.0).double(), t[v].double())
        for t, v in zip(truth, valid, strict=True)
    ]
    for name in ("abs_rel", "delta_1", "rmse", "silog"):
        assert abs(found[name] - np.mean([e[name] for e in by_hand])) < 1e-6
    assert found["count"] == 4


def test_a_map_without_readings_is_skipped_by_the_score():
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)

    class OneEmpty(DepthArrays):
        def __post_init__(self) -> None:
            """As a set of files, which may hold such a map."""

    valid = torch.ones(2, 16, 16, dtype=torch.bool)
    valid[1] = False
    scored = Scored(OneEmpty(images, torch.ones(2, 16, 16), valid, "toy"), OWN)
    assert (
        scores(scored, (16, 16), {"one": lambda x, part: torch.ones(len(x), 16, 16)}, Silence())["one"][
            "count"
        ]
        == 1
    )


@pytest.mark.parametrize("split", ["val", "test"])
def test_shapes_are_scored_on_their_objects_beside_two_baselines(split):
    columns = score(sampler(), Scoring("shapes", split, HOW, 0, Silence()))
    assert list(columns) == [FLOW, ENCODER, MEAN]
    for values in columns.values():
        assert values["count"] == 9
        assert values["measured_as"]["protocol"].startswith(
            "0.01 < depth < 2 m; frame whole, crop none, mask given"
        )
    assert columns[MEAN]["abs_rel"] < 0.6  # a mean over objects, not over walls, which would give about 1


def test_the_val_and_the_test_half_are_different_scenes():
    halves = [score(sampler(), Scoring("shapes", split, HOW, 0, Silence())) for split in ("val", "test")]
    assert halves[0][MEAN]["abs_rel"] != halves[1][MEAN]["abs_rel"]


def test_the_same_seed_draws_the_same_depth():
    columns = [score(sampler(), Scoring("shapes", "val", HOW, 3, Silence())) for _ in range(2)]
    assert columns[0] == columns[1]


def test_several_test_sets_make_columns_of_their_own(monkeypatch, tmp_path):
    source = by_name.open_depth("shapes", (16, 16))
    two = by_name.DepthSource(
        "two", source.train, source.val, {"a": source.test["shapes"], "b": source.test["shapes"]}
    )
    monkeypatch.setattr("cf_apps.depth.evaluate.open_depth", lambda *_: two)
    scoring = Scoring("two", "test", HOW, 0, Silence())
    columns = score(sampler(), scoring)
    assert list(columns) == [f"{name}: {who}" for name in "ab" for who in (FLOW, ENCODER, MEAN)]
    assert columns[f"b: {FLOW}"] == columns[f"a: {FLOW}"]  # whatever was scored before
    assert set(show(sampler(), scoring)) == {"samples_a", "samples_b"}


def test_one_s_own_folder_is_scored_in_metres(tmp_path):
    write_own(tmp_path, [f"{room}/{i}" for room in "abcdef" for i in range(2)])
    made = sampler(scaling__near=1.0, scaling__far=5.0)
    columns = score(made, Scoring(str(tmp_path), "test", HOW, 0, Silence()))
    # every map is 2 m on the left and 4 m on the right: each pixel's mean over the training maps is the truth
    assert columns[MEAN]["abs_rel"] < 0.02
    assert columns[FLOW]["abs_rel"] > 0.02
    assert show(made, Scoring(str(tmp_path), "test", HOW, 0, Silence()))["samples"].size[0] > 5 * 96


def test_depth_of_any_picture_comes_at_its_own_size():
    made = sampler()
    pictures = [
        torch.full((3, h, w), 90, dtype=torch.uint8) for h, w in ((1, 1), (16, 16), (7, 300), (97, 33))
    ]
    found = made.depths(pictures, HOW, dice())
    assert [tuple(depth.shape) for depth in found] == [(1, 1), (16, 16), (7, 300), (97, 33)]
    config = made.model.config.scaling
    assert all(bool((d >= config.near - 1e-6).all() and (d <= config.far + 1e-6).all()) for d in found)


def test_several_draws_give_each_pixel_s_median():
    made = sampler()
    picture = torch.randint(0, 256, (3, 16, 16), generator=dice(), dtype=torch.uint8)
    g = dice(1)
    one_by_one = [made.draw(picture[None], HOW, g)[0] for _ in range(3)]
    assert made.depths([picture], HOW, dice(1), draws=3)[0].equal(torch.stack(one_by_one).median(0).values)
    assert not one_by_one[0].equal(one_by_one[1])
    with pytest.raises(ConfigError, match="draws must be at least 1, got 0"):
        made.depths([picture], HOW, dice(), draws=0)


def test_temperature_0_takes_the_mean_of_x_0():
    made = sampler()
    images = torch.randint(0, 256, (2, 3, 16, 16), generator=dice(), dtype=torch.uint8)
    assert made.encode(images, dice(), 0.0)[:, 0].equal(made.means(images))
    assert not made.encode(images, dice(), 1.0)[:, 0].equal(made.means(images))
