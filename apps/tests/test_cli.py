"""The command line: what the user can repair is one line and exit code 2; help fits on a screen."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from cf_apps.cli import run
from cf_apps.t2i import prepare as prepare_module
from cf_apps.t2i.cli import COMMANDS
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from command_line import refused
from t2i_tiny import flags, write_folder

SCREEN_LINES, SCREEN_COLUMNS = 45, 100


@pytest.fixture(autouse=True)
def _away_from_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(prepare_module, "VOCABULARY_SAMPLE", 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "pairs")


@pytest.fixture(scope="module")
def large_folder(tmp_path_factory) -> Path:
    """Large enough that one in twenty are at least two."""
    return write_folder(tmp_path_factory.mktemp("data") / "pairs", [f"a circle {i}" for i in range(99)])


def train_words(folder: Path | str, out: Path, *more: str) -> list[str]:
    return [
        "t2i",
        "train",
        "--data",
        str(folder),
        "--out",
        str(out),
        "--steps",
        "2",
        "--device",
        "cpu",
        *flags(),
        *more,
    ]


@pytest.fixture(scope="module")
def model(folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert run(train_words(folder, out)) == 0
    return out


# ------------------------------------------------------------------------------------------------- the road


def test_train_sample_evaluate_interpolate_and_arithmetic_do_their_work(folder, model, tmp_path, capsys):
    commands = {
        "sample.png": ["sample", str(model), "a red circle", "a blue square", "-n", "3", "--scale", "2.0"],
        "walk.png": ["interpolate", str(model), "a red circle", "a blue square", "-n", "4"],
        "sum.png": ["arithmetic", str(model), "a red circle", "+", "a blue square", "-", "a circle"],
    }
    for name, words in commands.items():
        out = tmp_path / "new" / name
        assert run(["t2i", *words, "--out", str(out)]) == 0
        assert f"wrote {out}" in capsys.readouterr().out
        with Image.open(out) as picture:
            assert picture.width > 3 * 16


def test_evaluate_prints_a_table_and_writes_a_report(model, large_folder, tmp_path, capsys):
    report = tmp_path / "scores" / "report.json"
    words = ["t2i", "evaluate", str(model), "--data", str(large_folder), "--steps", "1", "--out", str(report)]
    assert run(words) == 0
    assert "frechet" in capsys.readouterr().out
    assert '"flow_loss_by_t"' in report.read_text()


def test_a_set_too_small_to_hold_out_two_pictures_is_named(model, folder, capsys):
    refused(capsys, ["t2i", "evaluate", str(model)], str(folder), "holds 1 images", "give more pairs")


def test_sampling_repeats_itself_by_seed(model, tmp_path):
    pictures = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert run(["t2i", "sample", str(model), "a circle", "--seed", seed, "--out", f"{name}.png"]) == 0
        pictures.append((tmp_path / f"{name}.png").read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


def test_resume_goes_on_from_the_last_step(folder, tmp_path, capsys):
    out = tmp_path / "run"
    assert run(train_words(folder, out)) == 0
    assert run([*train_words(folder, out, "--resume"), "--steps", "3"]) == 0
    assert "finished at step 3" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------- bad input


def test_an_unknown_task_lists_the_known(capsys):
    refused(capsys, ["t2v", "train"], "unknown task 't2v'", "known: t2i")


def test_a_missing_data_folder(tmp_path, capsys):
    out = tmp_path / "run"
    refused(capsys, train_words(tmp_path / "missing", out), "no such data folder", "missing", "shapes, emoji")
    assert not out.exists()


def test_images_without_captions_only(tmp_path, capsys):
    data = write_folder(tmp_path / "data")
    for text in data.glob("*.txt"):
        text.unlink()
    line = refused(
        capsys, train_words(data, tmp_path / "run"), str(data), "no usable captioned image", "no caption"
    )
    assert "20 skipped" in line
    assert not (tmp_path / "run").exists()


def test_a_folder_without_images(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    refused(capsys, train_words(tmp_path / "data", tmp_path / "run"), "holds no images", "metadata.jsonl")


def test_broken_images_only(tmp_path, capsys):
    data = write_folder(tmp_path / "data", ["a circle"])
    (data / "00.png").write_bytes((data / "00.png").read_bytes()[:50])
    refused(capsys, train_words(data, tmp_path / "run"), "00.png", "truncated")


def test_an_unknown_preset(folder, tmp_path, capsys):
    words = ["t2i", "train", "--preset", "tyni", "--out", str(tmp_path / "run")]
    refused(capsys, words, "unknown preset 'tyni'", "known: tiny, ", "emoji", "paper-256")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("loss.kl=1", "known: null_rate, times"),
        ("los.kl_weight=1", "known: image_size"),
        ("loss.kl_weight", "--set takes KEY=VALUE"),
        ("loss.times=erly", "known: uniform, logit_normal, early"),
        ("sample.solver=eular", "known: euler, midpoint"),
        ("language.name=bert", "known: clip, open-clip, t5"),
        ("codec.name=jpeg", "pixels, taef2"),
        ("fit.lr=fast", "fit.lr"),
        ("fit.lr=-1.0", "lr must be positive"),
        ("text_ve.patch=7", "patch 7 must divide"),
        ("text_ve.max_tokens=3", "raise text_ve.max_tokens"),
        ("backbone.size=[8, 8]", "backbone"),
        ("image_size=32", "pixels turns 32 px into (3, 32, 32)"),
    ],
)
def test_a_setting_that_cannot_be(folder, tmp_path, capsys, setting, expected):
    refused(capsys, train_words(folder, tmp_path / "run", "--set", setting), expected)
    assert not (tmp_path / "run").exists()


def test_steps_and_seconds_together(folder, tmp_path, capsys):
    refused(capsys, train_words(folder, tmp_path / "run", "--max-seconds", "3"), "--steps or --max-seconds")


def test_a_run_that_is_there_already(folder, model, capsys):
    refused(capsys, train_words(folder, model), str(model), "--resume")


def test_nothing_to_resume(folder, tmp_path, capsys):
    refused(capsys, train_words(folder, tmp_path / "run", "--resume"), "no run folder", "without --resume")


def test_a_folder_that_is_not_a_run(folder, tmp_path, capsys):
    for command in (
        ["sample", str(folder), "a circle"],
        ["evaluate", str(folder)],
        ["sample", "nowhere", "a"],
    ):
        refused(capsys, ["t2i", *command], command[1], "is not a run folder", "train wrote")
    refused(capsys, train_words(folder, folder), "is not a run folder", "choose another")


@pytest.mark.parametrize("kept", [0, 7, 1000])
def test_a_truncated_model_file(model, tmp_path, capsys, kept):
    copy = tmp_path / "run"
    shutil.copytree(model, copy)
    whole = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(whole[:kept])
    line = refused(capsys, ["t2i", "sample", str(copy), "a circle"], "model.safetensors", "damaged")
    assert "export it again or copy it anew" in line


def test_a_truncated_checkpoint(model, folder, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(model, copy)
    damaged = next(copy.glob("checkpoints/step-*2/weights.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-9])
    words = [*train_words(folder, copy, "--resume"), "--steps", "3"]
    refused(capsys, words, "weights.safetensors is damaged", "to go on from an earlier checkpoint")


def test_a_checkpoint_of_another_model(model, folder, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(model, copy)
    config = (copy / "config.json").read_text()
    (copy / "config.json").write_text(re.sub(r'"mlp_hidden": 16', '"mlp_hidden": 24', config))
    refused(capsys, ["t2i", "sample", str(copy), "a circle"], "is of another model")


def test_a_config_that_is_no_json(model, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(model, copy)
    (copy / "config.json").write_text("{")
    refused(capsys, ["t2i", "sample", str(copy), "a circle"], "cannot read", "config.json")


def test_a_caption_longer_than_the_model_reads(model, tmp_path, capsys):
    for command in ("sample", "interpolate", "arithmetic"):
        captions = ["a circle", "+", "a " * 30] if command == "arithmetic" else ["a circle", "a " * 30]
        refused(capsys, ["t2i", command, str(model), *captions], "more than 12 tokens", "shorten it")
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--solver", "eular"], "unknown solver 'eular'; known: euler, midpoint, heun, rk4, bosh3, dopri5"),
        (["--steps", "0"], "steps must be"),
        (["--temperature", "-1"], "temperature must be"),
        (["--scale", "nan"], "scale must be"),
        (["-n", "0"], "-n must be at least 1, got 0"),
        (["--device", "gpu"], "gpu"),
    ],
)
def test_drawing_options_that_cannot_be(model, capsys, words, expected):
    refused(capsys, ["t2i", "sample", str(model), "a circle", *words], expected)


def test_captions_that_are_missing(model, capsys):
    refused(capsys, ["t2i", "sample", str(model)], "at least one caption")
    refused(capsys, ["t2i", "interpolate", str(model), "a circle"], "at least two captions")
    refused(capsys, ["t2i", "arithmetic", str(model), "a circle", "+"], "ends in a sign")


def test_a_place_that_cannot_be_written(model, folder, large_folder, tmp_path, capsys):
    """A file where a folder should be refuses root too, as a full disk does."""
    taken = tmp_path / "taken"
    taken.write_text("a file")
    refused(capsys, train_words(folder, taken / "run"), "taken", "choose another folder")
    out = ["--out", str(taken / "out.png")]
    refused(capsys, ["t2i", "sample", str(model), "a circle", *out], "cannot write", "choose another --out")
    refused(capsys, ["t2i", "sample", str(model), "a circle", "--out", str(taken / "out")], "cannot write")
    refused(capsys, ["t2i", "interpolate", str(model), "a", "a circle", *out], "cannot write")
    refused(capsys, ["t2i", "arithmetic", str(model), "a", "+", "a circle", *out], "cannot write")
    refused(
        capsys,
        ["t2i", "evaluate", str(model), "--data", str(large_folder), "--steps", "1", *out],
        "cannot write",
    )
    assert taken.read_text() == "a file"


def test_a_disk_that_is_full(model, folder, tmp_path, capsys, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    refused(capsys, train_words(folder, tmp_path / "run"), "a checkpoint takes", "make room")


def test_memory_that_runs_out(model, capsys, monkeypatch):
    def fail(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate a lot")

    monkeypatch.setattr("cf_apps.t2i.sample.Sampler.flow", fail)
    refused(capsys, ["t2i", "sample", str(model), "a circle"], "out of memory", "fewer pictures")


def test_an_unknown_command_or_option_exits_with_two(capsys):
    for words in (["t2i", "tain"], ["t2i", "sample", "run", "a circle", "--scael", "3"]):
        with pytest.raises(SystemExit) as stop:
            run(words)
        assert stop.value.code == 2


# ------------------------------------------------------------------------------------------------- help


def shown(capsys, words: list[str]) -> list[str]:
    """What a command prints that only shows help: with code 0, whether it returns or exits."""
    code = 0
    try:
        code = run(words)
    except SystemExit as stop:
        code = stop.code
    assert code == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    "words", [["--help"], [], ["t2i", "--help"], ["t2i"], *(["t2i", c, "--help"] for c in COMMANDS)]
)
def test_help_fits_on_a_screen(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(SCREEN_COLUMNS))
    lines = shown(capsys, words)
    assert 3 < len(lines) <= SCREEN_LINES
    assert max(map(len, lines)) <= SCREEN_COLUMNS
    assert lines[0].startswith(("usage: crossflow", "crossflow:"))


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"import", "scaling"}))  # they draw nothing
def test_help_shows_defaults(command, capsys):
    text = " ".join(" ".join(shown(capsys, ["t2i", command, "--help"])).replace("│", " ").split())
    assert "(default: 0)" in text  # of the seed
    assert "(default: auto)" in text  # of the device


def test_help_names_every_command(capsys):
    text = "\n".join(shown(capsys, ["t2i", "--help"]))
    assert all(command in text for command in COMMANDS)
    assert "t2i" in "\n".join(shown(capsys, ["--help"]))


def test_a_run_starts_from_another_by_init(model, folder, tmp_path):
    out = tmp_path / "run"
    assert run(train_words(folder, out, "--init", str(model))) == 0
    config = json.loads((out / "config.json").read_text())["task"]["config"]
    assert config["init"] == str(model.resolve())


def test_a_run_to_start_from_that_is_not_there(folder, tmp_path, capsys):
    refused(
        capsys, train_words(folder, tmp_path / "run", "--init", "nowhere"), "nowhere", "is not a run folder"
    )
    assert not (tmp_path / "run").exists()
