"""Scores and sheets of a run: pictures are read back for their own captions, and the demo shows what it scored."""

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cf_apps.cli import run
from cf_apps.data.captioned import DataError, ImageTextArrays
from cf_apps.data.captioned_shapes import CaptionedShapes
from cf_apps.data.shapes_captions import Caption, describe
from cf_apps.engine.commands.app import Scoring
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.watching.progress import Silence
from cf_apps.t2i import demo as demo_module
from cf_apps.t2i import evaluate as evaluate_module
from cf_apps.t2i import prepare as prepare_module
from cf_apps.t2i.app import APP, show
from cf_apps.t2i.evaluate import BATCH, colour_distance, read_back, score_composition
from cf_apps.t2i.sample import Sampler
from PIL import Image
from scipy.linalg import sqrtm

sys.path.insert(0, str(Path(__file__).parent))
from t2i_tiny import baseline, dice, recipe, sampler, write_folder

HOW = SampleConfig(scale=1.0, steps=1, solver="euler")
LATENT_32 = [3, 32, 32]


@pytest.fixture(scope="module")
def it() -> Sampler:
    return sampler(language__max_tokens=40, text_ve__max_tokens=40)


@pytest.fixture(scope="module")
def scenes() -> tuple[torch.Tensor, list[Caption]]:
    """True pictures of captioned shapes, more than a batch, each with a caption of its own."""
    data, rng = CaptionedShapes(128, 32, seed=3), random.Random(0)
    captions = {index: describe(*data.truth(index), rng) for index in range(120)}
    kept = {caption.text: index for index, caption in captions.items() if caption is not None}
    images, _ = data.scenes(torch.tensor(list(kept.values())))
    return images.float() / 255, [captions[index] for index in kept.values()]


def paints(it: Sampler, pictures: dict[str, torch.Tensor]) -> Sampler:
    """A sampler that looks its pictures up."""

    class Painter(Sampler):
        def draw(self, captions, how, draws, batch_size=128):
            return torch.stack([pictures[text] for text in captions])

    return Painter(it.model)


# ------------------------------------------------------------------------------------------------- composition


def test_true_pictures_are_right_and_those_of_others_hardly_ever(scenes):
    images, captions = scenes
    score, right = read_back(images, captions)
    assert sum(right) / len(right) > 0.97
    assert score.compute()["count"] == len(captions) > BATCH
    _, shifted = read_back(images.roll(1, 0), captions)
    assert sum(shifted) / len(shifted) < 0.1


def test_each_picture_is_read_for_its_own_caption(it, scenes, monkeypatch):
    """Two true sets, said and unsaid, drawn by a model that knows the truth but for every fifth said caption."""
    images, captions = scenes
    _, readable = read_back(images, captions)
    said = [caption for caption, right in zip(captions, readable, strict=True) if right][:90]
    pictures = {caption.text: image for caption, image in zip(captions, images, strict=True)}
    for caption in said[::5]:
        pictures[caption.text] = torch.full((3, 32, 32), 0.5)
    lists = iter([said, said[1:5]])
    monkeypatch.setattr(evaluate_module, "held_out_captions", lambda *a, **k: next(lists))
    scored = score_composition(paints(it, pictures), HOW, Silence())
    assert scored.right == [place % 5 != 0 for place in range(90)]
    assert scored.captions == [caption.text for caption in said]
    assert scored.places_open == 1.0
    assert scored.images.shape == (90, 3, 32, 32)
    assert scored.table()["count"] == 90


# ------------------------------------------------------------------------------------------------- distance


def pairs(count: int, seed: int) -> ImageTextArrays:
    images = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=dice(seed))
    images[:, :, :, : count % 16] //= 2
    return ImageTextArrays(images, tuple((f"{i}",) for i in range(count)), "pairs")


def by_hand(a: torch.Tensor, b: torch.Tensor) -> float:
    """|m - n|^2 + Tr(C + D - 2 (C D)^(1/2)) of the means of 4 x 4 cells, in float64 (Dowson & Landau 1982)."""
    cells = [x.double().reshape(len(x), 3, 4, 4, 4, 4).mean((3, 5)).flatten(1).numpy() for x in (a, b)]
    (m, n), (c, d) = [x.mean(0) for x in cells], [np.cov(x, rowvar=False) for x in cells]
    return float(((m - n) ** 2).sum() + np.trace(c + d - 2 * sqrtm(c @ d).real))


@pytest.mark.parametrize("limit", [300, 999])
def test_the_distance_is_frechets_between_mean_colours(it, limit):
    truth = pairs(301, 1)
    other = pairs(301, 2).images.float() / 255
    painter = paints(it, {str(i): image for i, image in enumerate(other)})
    count = min(limit, 301)
    found = colour_distance(painter, truth, HOW, Silence(), limit=limit, seed=0)
    expected = by_hand(other[:count], truth.images[:count].float() / 255)
    assert found.value == pytest.approx(expected, rel=1e-4)
    assert found.count == count


def test_the_truth_is_at_no_distance_and_one_picture_has_none(it):
    truth = pairs(120, 1)
    painter = paints(it, {str(i): image.float() / 255 for i, image in enumerate(truth.images)})
    assert colour_distance(painter, truth, HOW, Silence(), limit=500, seed=0).value == pytest.approx(
        0, abs=1e-6
    )
    with pytest.raises(DataError, match="holds 1 images; a distance needs at least 2"):
        colour_distance(painter, pairs(1, 1), HOW, Silence(), limit=500, seed=0)


# ------------------------------------------------------------------------------------------------- pictures


def scoring(data: str) -> Scoring:
    return Scoring(data, "test", HOW, 0, Silence())


def test_pairs_are_shown_seen_and_held_out_and_shapes_by_captions_of_all_kinds(it, tmp_path):
    folder = write_folder(tmp_path / "pairs", [f"a circle {i}" for i in range(99)])
    assert list(show(it, scoring(str(folder)))) == ["samples", "samples_held_out", "interpolation"]
    assert list(show(it, scoring("shapes"))) == ["samples", "interpolation"]


def test_nothing_lies_between_two_captions_of_the_baseline():
    wide = baseline(language__max_tokens=40, reader__max_tokens=40)
    assert list(show(Sampler(wide), scoring("shapes"))) == ["samples"]


# ------------------------------------------------------------------------------------------------- the demo


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The demo with a tiny model and few captions, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    wide = recipe(
        language__max_tokens=40, text_ve__max_tokens=40, image_size=32, text_ve__latent=LATENT_32,
        backbone__size=LATENT_32[1:], image_tower__image=LATENT_32, image_tower__latent=LATENT_32,
    )  # fmt: skip
    for name in ("tiny", "emoji"):
        monkeypatch.setitem(APP.presets, name, lambda: wide)
    monkeypatch.setattr(prepare_module, "VOCABULARY_SAMPLE", 64)
    monkeypatch.setattr(prepare_module, "CODEC_SAMPLE", 64)
    few = {"per_task": 1, "per_task_open": 1}
    monkeypatch.setattr(demo_module, "score_composition", lambda *a, **k: score_composition(*a, **k, **few))
    monkeypatch.setattr(
        "cf_apps.t2i.app.score_pairs", lambda *a, **k: {"distance": 1.0, "flow_loss_by_t": [1.0]}
    )
    return tmp_path


def test_the_demo_of_shapes_shows_the_shipped_model_and_one_from_scratch(small, capsys, monkeypatch):
    shipped = small / "shipped"
    assert run(["t2i", "train", "--steps", "1", "--out", str(shipped), "--device", "cpu"]) == 0
    monkeypatch.setattr(demo_module, "shipped_run", lambda: shipped)
    assert run(["t2i", "demo", "--minutes", "0.005", "--seed", "3", "--device", "cpu"]) == 0
    out = small / "runs" / "t2i-demo"
    report = json.loads((out / "report.json").read_text())
    assert list(report["scores"]) == ["shipped", "0.005 min from scratch"]
    assert [column["count"] for column in report["scores"].values()] == [6, 6]
    assert report["seed"] == 3
    assert report["steps"] >= 1
    said = capsys.readouterr().out
    for name in ("samples", "samples_from_scratch", "scored", "interpolation"):
        assert f"{name}.png" in said
        with Image.open(out / f"{name}.png") as picture:
            assert picture.width > 300


def test_the_demo_of_emoji_shows_seen_and_held_out_captions(small):
    words = ["t2i", "demo", "--data", "emoji", "--minutes", "0.005", "--out", "e", "--device", "cpu"]
    assert run(words) == 0
    assert {path.name for path in (small / "e").glob("*.png")} >= {
        "samples.png",
        "samples_held_out.png",
        "interpolation.png",
    }
    assert json.loads((small / "e" / "report.json").read_text())["scores"] == {
        "score": {"distance": 1.0, "flow_loss_by_t": [1.0]}
    }


def test_the_demo_knows_two_sets(capsys, small):
    assert run(["t2i", "demo", "--data", "cats"]) == 2
    assert "knows the data shapes, emoji, not 'cats'" in capsys.readouterr().err
    assert not (small / "runs").exists()
