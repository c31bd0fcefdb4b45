"""Super-resolution from the command line: train, resume, enlarge, score; what is wrong is one line and code 2."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cf_apps.cli import run
from cf_apps.data.picture_sets import open_pictures
from cf_apps.engine.commands.app import Scoring, Setting
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.saving.checkpoint import checkpoints
from cf_apps.engine.seeds import step_generator
from cf_apps.engine.watching.log import read_log
from cf_apps.engine.watching.progress import Silence
from cf_apps.superres import evaluate as evaluate_module
from cf_apps.superres.degrade import enlarged, shrunk, to_bytes
from cf_apps.superres.evaluate import Judges, compare
from cf_apps.superres.task import prepare
from cf_eval import FID, PairedQuality, frechet_distance
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from command_line import refused
from superres_tiny import CPU, ONCE, flags, noise, recipe, still, write_folder


@pytest.fixture(autouse=True)
def _away_from_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate_module, "LIMIT", 24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "pictures", 60)


def train_words(folder: Path | str, out: Path, *more: str) -> list[str]:
    words = ["superres", "train", "--data", str(folder), "--out", str(out), "--device", "cpu"]
    return [*words, *(() if "--steps" in more else ("--steps", "2")), *flags(), *more]


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "ours"
    assert run(train_words(folder, out)) == 0
    return out


@pytest.fixture(scope="module")
def baseline(folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "regression"
    assert run(train_words(folder, out, "--set", "method=regression")) == 0
    return out


def setting(data: str, seed: int = 0) -> Setting:
    return Setting(data, CPU, seed, Silence())


# ------------------------------------------------------------------------------------------------- the task


def test_a_batch_is_the_enlarged_and_the_sharp_picture_and_the_same_for_the_same_numbers():
    task = prepare(recipe(image_size=32, backbone__size=[32, 32]).model, setting("shapes")).task
    batch, again, later = task.batch(8, 4), task.batch(8, 4), task.batch(12, 4)
    assert torch.equal(batch.x_1, again.x_1)
    assert not torch.equal(batch.x_1, later.x_1)
    pictures = ((batch.x_1 + 1) * 127.5).round().to(torch.uint8)
    assert torch.allclose(batch.up, enlarged(shrunk(pictures, 4), 4) * 2 - 1, atol=1e-5)


@pytest.mark.parametrize("method", ["crossflow", "concat", "regression"])
def test_a_few_steps_on_a_few_pictures_lower_the_loss(method, folder):
    task = prepare(recipe(method=method).model, setting(str(folder))).task
    optimizer = torch.optim.Adam(task.modules.parameters(), 1e-2)
    batch, losses = task.batch(0, 8), []
    for step in range(25):
        loss = task.losses(batch, step_generator("cpu", 0, step % 2), 0.0).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_every_parameter_gets_a_gradient(folder):
    for method in ("crossflow", "concat", "regression"):
        task = prepare(recipe(method=method).model, setting(str(folder))).task
        task.losses(task.batch(0, 4), step_generator("cpu", 0), 0.0).total.backward()
        without = [name for name, p in task.modules.named_parameters() if p.grad is None]
        # regression only knows t = 0, and nobody leaves the picture out: what belongs to t = 1 and null stays as it is
        assert not without


def test_what_could_not_be_used_is_in_the_log_and_said(folder, tmp_path, capsys):
    mixed = write_folder(tmp_path / "mixed", 30)
    (mixed / "bad.png").write_bytes(b"no picture")
    Image.new("RGB", (9, 30)).save(mixed / "narrow.png")
    assert run(train_words(mixed, tmp_path / "run")) == 0
    said = capsys.readouterr().err
    assert "1 samples were skipped" in said
    assert "1 pictures were dropped, a side of theirs is shorter than 16 pixels" in said
    skipped, dropped = read_log(tmp_path / "run", "event")
    assert skipped["samples"][0][0] == "bad.png"
    assert dropped["too_small"] == 1


def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(folder, tmp_path):
    def train(out: str, *more: str) -> None:
        constant = ("--set", "fit.schedule=constant")  # cosine would follow the number of steps
        assert run(train_words(folder, tmp_path / out, *constant, *more)) == 0

    train("whole", "--steps", "4")
    train("parts", "--steps", "2")
    train("parts", "--steps", "4", "--resume")
    whole, parts = (list(checkpoints(tmp_path / name).values())[-1] for name in ("whole", "parts"))
    assert (whole / "weights.safetensors").read_bytes() == (parts / "weights.safetensors").read_bytes()


# ------------------------------------------------------------------------------------------------- scores


def test_a_model_that_does_nothing_scores_as_bicubic_does(folder):
    scoring = Scoring(str(folder), "test", ONCE, 0, Silence())
    columns = compare(still(), scoring, {}, None)
    for name in ("psnr", "ssim", "frechet_distance_of_sharpness"):
        assert columns["ours"][name] == pytest.approx(columns["bicubic"][name], rel=1e-6)
    truth = open_pictures(str(folder), 16).test
    pictures = truth.batch(torch.arange(len(truth)))
    quality = PairedQuality()
    quality.add_batch(to_bytes(enlarged(shrunk(pictures, 4), 4)), pictures)
    assert columns["bicubic"]["psnr"] == quality.compute().values["psnr"]
    assert columns["bicubic"]["count"] == len(truth)
    assert "FID" not in json.dumps(columns).upper().replace("FRECHET", "")


def test_val_and_test_are_other_pictures(folder):
    scores = [
        compare(still(), Scoring(str(folder), split, ONCE, 0, Silence()), {}, None)["bicubic"]
        for split in ("val", "test")
    ]
    assert scores[0]["psnr"] != scores[1]["psnr"]


def test_evaluate_writes_ours_bicubic_and_the_other_runs(trained, baseline, tmp_path, capsys):
    words = [
        "superres",
        "evaluate",
        str(trained),
        "--against",
        str(baseline),
        "--out",
        str(tmp_path / "it.json"),
    ]
    assert run(words) == 0
    report = json.loads((tmp_path / "it.json").read_text())
    assert list(report) == ["ours", "bicubic", "regression"]
    assert report["ours"]["psnr"] != report["regression"]["psnr"]
    assert "wang" in report["ours"]["measured_as"]["quality"]["protocol"]
    assert "block DCT" in report["ours"]["measured_as"]["distance"]["protocol"]
    assert "psnr" in capsys.readouterr().out


def test_runs_of_other_sizes_are_not_compared(trained):
    other = evaluate_module.Other(still(factor=2), SampleConfig(scale=1.0))
    scoring = Scoring("shapes", "test", ONCE, 0, Silence())
    with pytest.raises(ConfigError, match="x2 enlarges 8 px to 16, this run 4 to 16"):
        compare(still(), scoring, {"x2": other}, None)


def test_an_fid_needs_the_real_weights(trained, tmp_path, capsys):
    (tmp_path / "weights.pth").write_bytes(b"nothing")
    words = ["superres", "evaluate", str(trained), "--inception", str(tmp_path / "weights.pth")]
    refused(capsys, words, "weights.pth for an FID")


def test_what_cannot_be_scored_is_refused(trained, tmp_path, capsys):
    few = write_folder(tmp_path / "few", 2)
    refused(
        capsys,
        ["superres", "evaluate", str(trained), "--data", str(few)],
        "1 pictures out for test",
        "at least 2",
    )
    refused(capsys, ["superres", "evaluate", str(tmp_path / "none")], "not a run folder")
    refused(capsys, ["superres", "evaluate", str(trained), "--data", "nowhere"], "nowhere does not exist")


# ------------------------------------------------------------------------------------------------- sample


def test_sample_writes_each_picture_enlarged_and_a_sheet_beside_bicubic(trained, tmp_path, capsys):
    (tmp_path / "a").mkdir()
    Image.new("L", (7, 5), 90).save(tmp_path / "cat.png")
    Image.new("RGBA", (6, 9), (255, 0, 0, 99)).save(tmp_path / "a" / "cat.webp")
    words = [
        "superres",
        "sample",
        str(trained),
        "cat.png",
        str(tmp_path / "a" / "cat.webp"),
        "--out",
        "large",
    ]
    assert run(words) == 0
    written = {path.name: Image.open(path).size for path in (tmp_path / "large").iterdir()}
    assert written["cat_x4.png"] == (28, 20)
    assert written["cat-2_x4.png"] == (24, 36)
    assert {"cat_x4_beside_bicubic.png", "cat-2_x4_beside_bicubic.png"} < set(written)
    assert capsys.readouterr().out.count("wrote") == 4


def stored(path: Path, mode: str, size: tuple[int, int] = (6, 5), **options) -> Path:
    image = (
        Image.fromarray(np.full(size[::-1], 40_000, np.uint16))
        if mode == "I;16"
        else Image.new(mode, size, 1)
    )
    image.save(path, **options)
    return path


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("1", "png"),
        ("L", "png"),
        ("LA", "png"),
        ("P", "gif"),
        ("RGBA", "png"),
        ("CMYK", "jpg"),
        ("I;16", "png"),
    ],
)
def test_a_picture_of_any_mode_is_enlarged(mode, suffix, trained, tmp_path):
    path = stored(tmp_path / f"it.{suffix}", mode)
    assert run(["superres", "sample", str(trained), str(path), "--steps", "1"]) == 0
    with Image.open(tmp_path / "enlarged" / "it_x4.png") as large:
        assert (large.mode, large.size) == ("RGB", (24, 20))


def test_one_pixel_is_enlarged_too(trained, tmp_path):
    stored(tmp_path / "dot.png", "RGB", (1, 1))
    assert run(["superres", "sample", str(trained), "dot.png"]) == 0
    with Image.open(tmp_path / "enlarged" / "dot_x4.png") as large:
        assert large.size == (4, 4)


BAD = {
    "missing.png": (None, "no such picture: missing.png"),
    "empty.png": (b"", "0 bytes"),
    "poem.jpg": (b"a poem\n" * 40, "not an image"),
    "cut.png": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "cannot read cut.png"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_picture_is_refused_before_any_is_enlarged(name, trained, tmp_path, capsys):
    data, words = BAD[name]
    stored(tmp_path / "good.png", "RGB")
    if data is not None:
        (tmp_path / name).write_bytes(data)
    refused(capsys, ["superres", "sample", str(trained), "good.png", name], words)
    assert not (tmp_path / "enlarged").exists()


def test_a_folder_an_8000_pixel_picture_and_no_picture_are_refused_with_the_remedy(trained, tmp_path, capsys):
    (tmp_path / "album").mkdir()
    refused(capsys, ["superres", "sample", str(trained), "album"], "is a folder; give the pictures in it")
    stored(tmp_path / "huge.png", "1", (8_000, 8_000))
    refused(
        capsys, ["superres", "sample", str(trained), "huge.png"], "8,000 x 8,000 pixels", "make it smaller"
    )
    refused(capsys, ["superres", "sample", str(trained)], "give at least one picture")


def test_a_run_of_another_task_is_called_what_it_is(trained, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    config = json.loads((trained / "config.json").read_text())
    config["task"]["name"] = "depth"
    (other / "config.json").write_text(json.dumps(config))
    stored(tmp_path / "good.png", "RGB")
    refused(capsys, ["superres", "sample", str(other), "good.png"], "a run of `crossflow depth`")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--set", "method=magic"], "known: crossflow, concat, regression"),
        (["--set", "image_size=64", "--set", "backbone.size=[64,64]"], "60 have a side shorter than 64"),
        (["--preset", "huge"], "known: tiny, tiny-64, small, paper"),
        (["--data", "nowhere"], "nowhere does not exist"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_the_first_step(words, expected, folder, tmp_path, capsys):
    refused(capsys, train_words(folder, tmp_path / "run", *words), expected)
    assert not (tmp_path / "run").exists()


def test_the_papers_preset_says_what_it_needs(folder, tmp_path, capsys):
    words = ["superres", "train", "--preset", "paper", "--out", str(tmp_path / "run")]
    refused(capsys, words, "pass --data", "train and val folders")


class MeanColours:
    """Features that are nobody's network."""

    name, weights, rounding = "mean colours", {}, "round"

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean((2, 3))


def test_a_distance_of_other_features_than_inceptions_is_never_called_an_fid():
    judges = Judges(FID(MeanColours()))
    truth, drawn = noise(8, 3, 16, 16), noise(8, 3, 16, 16, seed=1)
    judges.see(drawn, truth)
    table = judges.table()
    assert table["frechet_distance"] == pytest.approx(
        frechet_distance(*(MeanColours()(pictures) for pictures in (truth, drawn)))
    )
    assert "fid" not in table
