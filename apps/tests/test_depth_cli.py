"""`crossflow depth`: train, evaluate, sample; bad pictures and wrong folders get a word, never a traceback."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from cf_apps.cli import run
from cf_apps.data.depth_sets import by_name
from cf_apps.depth import baselines
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from depth_layouts import write_own
from depth_tiny import flags


@pytest.fixture(autouse=True)
def _small_and_away_from_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(by_name, "HELD_OUT_SCENES", 5)
    monkeypatch.setattr(baselines, "FITTED_ON", 8)


def train(out: Path, data: Path | str, *more: str, **changes: object) -> int:
    words = ["depth", "train", "--data", str(data), "--out", str(out), "--steps", "2", "--device", "cpu"]
    return run([*words, *flags(**changes), *more])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_own(
        tmp_path_factory.mktemp("data") / "rooms", [f"{room}/{i}" for room in "abcdef" for i in range(2)]
    )


@pytest.fixture(scope="module")
def model(folder, tmp_path_factory) -> Path:
    """Trained on a folder with holes, near and far measured."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert train(out, folder, scaling__kind="log", scaling__near=None, scaling__far=None) == 0
    return out


def test_training_measures_near_and_far_and_keeps_them(model, folder):
    config = json.loads((model / "config.json").read_text())["task"]
    assert (config["name"], config["data"]) == ("depth", str(folder))
    scaling = config["config"]["scaling"]
    assert (scaling["kind"], scaling["near"], scaling["far"]) == ("log", 2.0, 4.0)


def test_training_on_shapes_and_going_on(tmp_path):
    assert train(tmp_path / "run", "shapes") == 0
    assert train(tmp_path / "run", "shapes", "--resume") == 0


def test_evaluate_prints_the_three_columns_and_writes_them(model, tmp_path, capsys):
    assert (
        run(["depth", "evaluate", str(model), "--out", str(tmp_path / "report.json"), "--device", "cpu"]) == 0
    )
    report = json.loads((tmp_path / "report.json").read_text())
    assert list(report) == ["CrossFlow", "ImageVE alone", "pixel mean"]
    assert {"abs_rel", "delta_1", "count", "measured_as"} <= set(report["CrossFlow"])
    assert "abs rel" in capsys.readouterr().out


def test_sample_writes_a_picture_a_png_and_a_cloud(model, tmp_path):
    Image.fromarray(np.arange(40 * 30 * 3, dtype=np.uint8).reshape(40, 30, 3)).save(tmp_path / "photo.png")
    words = ["depth", "sample", str(model), str(tmp_path / "photo.png"), "--out", str(tmp_path / "out")]
    assert run([*words, "--draws", "3", "--focal", "25", "--device", "cpu"]) == 0
    out = tmp_path / "out"
    assert {file.name for file in out.iterdir()} == {
        "photo.png",
        "photo_depth16.png",
        "photo.ply",
        "depth.json",
    }
    scale = json.loads((out / "depth.json").read_text())["scale"]
    with Image.open(out / "photo_depth16.png") as file:
        metres = np.asarray(file) * scale
    assert metres.shape == (40, 30)
    assert 2 <= metres.min() <= metres.max() <= 4
    assert b"focal length 25 pixels" in (out / "photo.ply").read_bytes()[:200]


def test_pictures_of_one_name_do_not_overwrite_one_another(model, tmp_path):
    for place in "ab":
        (tmp_path / place).mkdir()
        Image.new("RGB", (9, 9), (place == "a" and "red") or "blue").save(tmp_path / place / "x.png")
    words = [str(tmp_path / place / "x.png") for place in "ab"]
    assert (
        run(["depth", "sample", str(model), *words, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    )
    assert {f.name for f in (tmp_path / "out").glob("*.ply")} == {"x.ply", "x-2.ply"}


def _rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (12, 8), "red").save(path, exif=exif)


GOOD = {
    "grey": lambda p: Image.new("L", (12, 8), 70).save(p),
    "palette": lambda p: Image.new("RGB", (12, 8), "red").convert("P").save(p),
    "alpha": lambda p: Image.new("RGBA", (12, 8), (9, 9, 9, 0)).save(p),
    "sixteen_bits": lambda p: Image.fromarray(np.full((8, 12), 40_000, np.uint16)).save(p),
    "one_pixel": lambda p: Image.new("RGB", (1, 1)).save(p),
    "a_line": lambda p: Image.new("RGB", (900, 1)).save(p),
    "large": lambda p: Image.new("RGB", (2300, 1500), "green").save(p),
}
BAD = {
    "truncated": lambda p: (Image.effect_noise((60, 60), 50).save(p), p.write_bytes(p.read_bytes()[:500])),
    "poem": lambda p: p.write_text("not a picture"),
    "empty": lambda p: p.touch(),
    "folder": lambda p: p.mkdir(),
    "missing": lambda p: None,
}


@pytest.mark.parametrize("case", GOOD)
def test_pictures_of_every_kind_are_measured(model, tmp_path, case):
    path = tmp_path / f"{case}.png"
    GOOD[case](path)
    assert (
        run(["depth", "sample", str(model), str(path), "--out", str(tmp_path / "o"), "--device", "cpu"]) == 0
    )
    with Image.open(path) as given, Image.open(tmp_path / "o" / f"{case}_depth16.png") as depth:
        assert depth.size == given.size


def test_cmyk_and_rotated_photos_are_measured_as_one_sees_them(model, tmp_path):
    Image.new("CMYK", (12, 8), (0, 200, 10, 5)).save(tmp_path / "cmyk.jpg")
    _rotated(tmp_path / "phone.jpg")
    words = [str(tmp_path / name) for name in ("cmyk.jpg", "phone.jpg")]
    assert run(["depth", "sample", str(model), *words, "--out", str(tmp_path / "o"), "--device", "cpu"]) == 0
    with Image.open(tmp_path / "o" / "phone_depth16.png") as depth:
        assert depth.size == (8, 12)


@pytest.mark.parametrize("case", BAD)
def test_a_bad_picture_is_named_and_the_others_are_measured_all_the_same(model, tmp_path, case, capsys):
    path = tmp_path / f"{case}.png"
    BAD[case](path)
    GOOD["grey"](tmp_path / "good.png")
    words = [str(path), str(tmp_path / "good.png")]
    assert run(["depth", "sample", str(model), *words, "--out", str(tmp_path / "o"), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert f"{case}.png" in error
    assert "Traceback" not in error
    assert (tmp_path / "o" / "good.ply").exists()


def test_what_cannot_work_is_one_line_and_exit_code_2(model, folder, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"task": {"name": "caption"}}')
    GOOD["grey"](tmp_path / "good.png")
    picture = str(tmp_path / "good.png")
    for words, message in (
        (["sample", str(other), picture], "is a run of `crossflow caption`, this is `crossflow depth`"),
        (["sample", str(tmp_path / "nowhere"), picture], "nowhere is not a run folder"),
        (["sample", str(model)], "picture"),
        (["sample", str(model), picture, "--draws", "0"], "draws must be at least 1, got 0"),
        (["sample", str(model), picture, "--focal", "-1"], "focal length must be a positive number"),
        (["sample", str(model), picture, "--solver", "eular"], "unknown solver 'eular'"),
        (["train", "--out", str(tmp_path / "r"), "--data", "nowhere"], "no such depth data: nowhere"),
        (["train", "--out", str(tmp_path / "r"), "--preset", "paper-nyu"], "no data of its own; pass --data"),
        (["train", "--out", str(tmp_path / "r"), "--preset", "huge"], "known: tiny, small, paper-kitti"),
        (["train", "--out", str(tmp_path / "r"), "--data", f"kitti:{folder}"], "cannot read the split list"),
        (["evaluate", str(model), "--data", "nyu:nowhere"], "cannot read the split list"),
    ):
        try:
            code = run(["depth", *words, "--device", "cpu"])
        except SystemExit as stop:  # tyro's own complaint about missing words
            code = stop.code
        captured = capsys.readouterr()
        assert code == 2, words
        assert message in captured.err + captured.out, words
        assert "Traceback" not in captured.err
