"""`crossflow caption`: the whole road on small folders, and a line with the remedy for whatever can be wrong."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from cf_apps.caption import sources as sources_module
from cf_apps.caption.presets import PRESETS, TEXT_PRESETS
from cf_apps.cli import run
from cf_apps.engine.watching.log import read_log
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from caption_tiny import (
    CAPTIONS,
    FIT_SETTINGS,
    SETTINGS,
    TEXT_SETTINGS,
    flags,
    recipe,
    text_recipe,
    write_folder,
)
from command_line import refused

ODD = [
    "\U0001f534 \U0001f468\u200d\U0001f469",
    "שלום עולם",
    "word " * 10_000,
    "a <eos> in the middle",
    "%s {0} \\n",
]


@pytest.fixture(autouse=True)
def _away_from_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources_module, "HELD_OUT_SCENES", 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Pictures with captions, odd ones among them."""
    return write_folder(tmp_path_factory.mktemp("data") / "pairs", [*CAPTIONS * 8, *ODD])


def text_words(folder: Path | str, out: Path | str) -> list[str]:
    words = [
        "caption",
        "train-text",
        "--data",
        str(folder),
        "--out",
        str(out),
        "--steps",
        "2",
        "--device",
        "cpu",
    ]
    return [*words, *flags(TEXT_SETTINGS | FIT_SETTINGS)]


def flow_words(folder: Path | str, text: Path | str, out: Path | str) -> list[str]:
    words = [
        "caption",
        "train",
        "--data",
        str(folder),
        "--text",
        str(text),
        "--out",
        str(out),
        "--steps",
        "2",
    ]
    return [*words, "--device", "cpu", *flags(SETTINGS | FIT_SETTINGS)]


@pytest.fixture(scope="module")
def text(folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "text"
    assert run(text_words(folder, out)) == 0
    return out


@pytest.fixture(scope="module")
def model(folder, text, tmp_path_factory) -> Path:
    """A run whose text run is gone: it must not be missed."""
    copy = tmp_path_factory.mktemp("copy") / "text"
    shutil.copytree(text, copy)
    out = tmp_path_factory.mktemp("runs") / "caption"
    assert run(flow_words(folder, copy, out)) == 0
    shutil.rmtree(copy)
    return out


@pytest.fixture
def photo(tmp_path) -> Path:
    Image.new("RGB", (33, 20), (200, 30, 40)).save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


# ---------------------------------------------------------------------------------- the road


def test_a_run_is_complete_without_the_text_run_it_was_trained_with(model):
    assert {path.name for path in model.iterdir()} == {
        "config.json",
        "log.jsonl",
        "checkpoints",
        "model.safetensors",
    }
    task = json.loads((model / "config.json").read_text())["task"]
    assert task["name"] == "caption"
    assert len(task["config"]["mean"]) == len(task["config"]["std"]) == 3
    assert "circle" in task["tokenizer"]["words"]
    assert {"flow", "total"} == set(read_log(model)[-1]["losses"])


def test_sample_prints_a_caption_for_each_picture(model, photo, tmp_path, capsys):
    other = tmp_path / "other.png"
    Image.new("L", (9, 40), 7).save(other)
    assert run(["caption", "sample", str(model), str(photo), str(other)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(photo), str(other)]


def test_sample_prints_several_on_request_and_repeats_itself_by_seed(model, photo, capsys):
    said = []
    for seed in ("1", "1"):
        assert run(["caption", "sample", str(model), str(photo), "-n", "3", "--seed", seed]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    lines = said[0].splitlines()
    assert lines[0] == f"{photo}:"
    assert len(lines) == 4
    assert all(line.startswith("  ") for line in lines[1:])


def test_evaluate_prints_a_table_and_writes_a_report(model, tmp_path, capsys):
    report = tmp_path / "scores" / "report.json"
    words = ["caption", "evaluate", str(model), "--java", "/no/java", "--out", str(report)]
    assert run(words) == 0
    said = capsys.readouterr().out
    assert "METEOR skipped" in said
    assert "cider d" in said
    assert set(json.loads(report.read_text())) == {"written", "another_picture's"}
    assert (
        run(["caption", "evaluate", str(model), "--data", "shapes", "--split", "val", "--java", "/no/java"])
        == 0
    )
    assert "grammatical" in capsys.readouterr().out


def test_evaluate_text_prints_how_many_captions_come_back(text, capsys):
    assert run(["caption", "evaluate-text", str(text)]) == 0
    assert "exact at temperature 0" in capsys.readouterr().out


def test_resume_goes_on_without_naming_the_text_run_again(folder, text, tmp_path, capsys):
    out = tmp_path / "run"
    words = flow_words(folder, text, out)
    assert run(words) == 0
    again = [word for word in words if word not in ("--text", str(text))]
    assert run([*again, "--resume", "--steps", "3"]) == 0
    assert "finished at step 3" in capsys.readouterr().out


def test_the_demo_trains_both_and_leaves_pictures_and_a_report(folder, tmp_path, capsys, monkeypatch):
    small_text, small = text_recipe(), recipe()
    monkeypatch.setitem(TEXT_PRESETS, "tiny", lambda: small_text)
    monkeypatch.setitem(PRESETS, "tiny", lambda: small)
    words = [
        "caption",
        "demo",
        "--data",
        str(folder),
        "--out",
        "demo",
        "--minutes",
        "0.002",
        "--device",
        "cpu",
    ]
    assert run(words) == 0
    said = capsys.readouterr().out
    assert "exact at temperature" in said
    assert "cider" in said
    for name in ("captions.png", "loss.png", "report.json"):
        assert (tmp_path / "demo" / "caption" / name).stat().st_size > 0
    report = json.loads((tmp_path / "demo" / "caption" / "report.json").read_text())
    assert report["scores"]["written"]["captions"] >= 1


# ---------------------------------------------------------------------------------- bad input


def test_training_without_a_text_run_is_refused_with_the_command_that_makes_one(folder, capsys):
    words = flow_words(folder, "x", "run")
    del words[words.index("--text") : words.index("--text") + 2]
    refused(capsys, words, "crossflow caption train-text", "--text")


def test_a_folder_that_is_no_text_run_is_refused(folder, model, tmp_path, capsys):
    refused(capsys, flow_words(folder, tmp_path / "nowhere", "run"), "nowhere is not a run folder")
    refused(capsys, flow_words(folder, model, "run"), "a run of `crossflow caption`", "caption train-text")


def test_runs_of_other_kinds_are_refused(text, model, photo, tmp_path, capsys):
    line = refused(
        capsys, ["caption", "sample", str(text), str(photo)], "a run of `crossflow caption train-text`"
    )
    assert "this is `crossflow caption`" in line
    refused(capsys, ["caption", "evaluate-text", str(model)], "a run of `crossflow caption`")
    other = tmp_path / "depth"
    other.mkdir()
    (other / "config.json").write_text('{"task": {"name": "depth"}}')
    refused(capsys, ["caption", "sample", str(other), str(photo)], "a run of `crossflow depth`")


def test_captions_of_other_words_than_the_text_run_knows_are_said(tmp_path, text, capsys):
    strange = write_folder(tmp_path / "strange", ["un chat noir", "deux chiens", "une maison"] * 9)
    assert run(flow_words(strange, text, tmp_path / "run")) == 0
    assert "the text run gives back only 0 %" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-n", "0"], "-n must be at least 1, got 0"),
        (["missing.jpg"], "no such picture: missing.jpg"),
        (["."], "is a folder"),
        (["--steps", "0"], "steps must be a whole number"),
        (["--solver", "eular"], "unknown solver 'eular'"),
    ],
)
def test_sampling_of_what_cannot_be_is_refused(model, photo, capsys, words, expected):
    refused(capsys, ["caption", "sample", str(model), str(photo), *words], expected)


def test_no_picture_at_all_is_refused(model, capsys):
    refused(capsys, ["caption", "sample", str(model)], "give at least one picture")


def _pictures(folder: Path) -> dict[str, bool]:
    """Files of every mode and size, with whether they can be captioned."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (19, 31, 3), dtype=np.uint8))
    made = {
        "grey.png": colour.convert("L"),
        "palette.gif": colour.convert("P"),
        "alpha.png": colour.convert("RGBA"),
        "bilevel.png": colour.convert("1"),
        "cmyk.jpg": colour.convert("CMYK"),
        "sixteen.png": Image.fromarray(rng.integers(0, 65536, (19, 31), dtype=np.uint16)),
        "one.png": Image.new("RGB", (1, 1)),
        "line.png": Image.new("RGB", (1, 900)),
        "large.png": Image.new("L", (8_000, 400)),
    }
    for name, picture in made.items():
        picture.save(folder / name)
    exif = Image.Exif()
    exif[0x0112] = 6
    colour.save(folder / "turned.jpg", exif=exif)
    (folder / "truncated.jpg").write_bytes((folder / "turned.jpg").read_bytes()[:400])
    (folder / "renamed.jpg").write_text("I am a text")
    (folder / "empty.png").write_bytes(b"")
    return dict.fromkeys((*made, "turned.jpg"), True) | dict.fromkeys(
        ("truncated.jpg", "renamed.jpg", "empty.png"), False
    )


def test_pictures_of_every_mode_and_size_are_captioned_or_named(model, tmp_path, capsys):
    pictures = _pictures(tmp_path)
    good = [name for name, fine in pictures.items() if fine]
    assert run(["caption", "sample", str(model), *good]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == good
    for name in (name for name, fine in pictures.items() if not fine):
        refused(capsys, ["caption", "sample", str(model), good[0], name], name)
