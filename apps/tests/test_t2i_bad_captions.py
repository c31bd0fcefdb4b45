"""A table of captions and runs that nobody thought of, through the command line: a clear word or the right result."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from cf_apps.cli import run
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from t2i_tiny import flags, write_folder

SURROGATE = "a \ud83c circle"  # half of an emoji, as a broken argument or a JSON escape brings it
REFUSED = {
    # name              caption            said of it
    "empty": ("", "the caption '' is empty; say what to draw"),
    "only spaces": ("   ", "' is empty; say what to draw"),
    "only a tab and a line end": ("\t\n", r"the caption '\t\n' is empty"),
    "only invisible marks": ("\u200b\u200e", r"the caption '\u200b\u200e' is empty"),
    "10,000 words": ("circle " * 10_000, "caption of more than 12 tokens: 'circle circle"),
    "one word of 10,000 signs": ("?!" * 5_000, "caption of more than 12 tokens: '?!?!"),
    "NUL": ("a\x00circle", r"has the control character '\x00'; take it out"),
    "an escape of the terminal": ("a \x1b[31mred\x1b[0m circle", r"has the control character '\x1b'"),
    "backspace": ("a\x08circle", r"has the control character '\x08'"),
    "a lone surrogate": (SURROGATE, r"'a \ud83c circle' has half a character at place 2; write it as UTF-8"),
}
DRAWN = {
    "emoji": "a red circle 🎈👩‍👩‍👧",
    "right-to-left": "עיגול אדום",
    "right-to-left override": "\u202ea red circle\u202c",
    "Arabic": "دائرة حمراء",
    "Chinese": "红色圆圈",
    "accents apart": "e\u0301 a\u0308",
    "tabs and line ends": "a red\tcircle\r\non\x0cwhite",
    "one word of 10,000 letters": "x" * 10_000,
    "quotes, percent, braces": "'a' %s {c} \\n",
    "a path": "../../etc/passwd",
    "markup": "[red]a[/red]",
    "a flag of tyro in the middle": "a --scale 3",
}
COMMANDS = {
    "sample": lambda text: [text],
    "interpolate": lambda text: ["a circle", text],
    "arithmetic": lambda text: ["a circle", "+", text],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("t2i")
    data, out = write_folder(folder / "pairs"), folder / "run"
    words = ["t2i", "train", "--data", str(data), "--out", str(out), "--steps", "1", "--device", "cpu"]
    assert run([*words, *flags()]) == 0
    return out


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refused(capsys, words: list[str], *expected: str) -> None:
    """One short line on stderr, code 2, nothing written."""
    capsys.readouterr()
    before = sorted(Path().iterdir())
    assert run(["t2i", *words]) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.startswith("error: ") for line in said] == [True]
    assert len(said[0]) < 400
    for part in expected:
        assert part in said[0]
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_drawn_is_said(model, capsys, command, name):
    text, expected = REFUSED[name]
    refused(capsys, [command, str(model), *COMMANDS[command](text)], expected)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_drawn_is_said_with_its_line(model, capsys, name):
    text, expected = REFUSED[name]
    Path("p.jsonl").write_text(f'{{"prompt": "a circle"}}\n{json.dumps({"prompt": text})}\n')
    refused(capsys, ["sample", str(model), "--prompts", "p.jsonl"], "p.jsonl: line 2", expected)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", DRAWN)
def test_what_can_be_drawn_is_drawn(model, capsys, command, name):
    words = [command, str(model), *COMMANDS[command](DRAWN[name]), "--out", "a.png", "--steps", "1"]
    assert run(["t2i", *words]) == 0
    assert "wrote a.png" in capsys.readouterr().out
    with Image.open("a.png") as picture:
        assert picture.width > 96


def test_all_that_can_be_drawn_fits_into_one_folder_and_its_list(model, capsys):
    texts = list(DRAWN.values())
    Path("p.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    assert (
        run(["t2i", "sample", str(model), "--prompts", "p.jsonl", "-n", "1", "--out", "all", "--steps", "1"])
        == 0
    )
    assert f"wrote {len(texts)} pictures" in capsys.readouterr().out
    lines = [json.loads(line) for line in Path("all/manifest.jsonl").read_text("utf-8").split("\n") if line]
    assert [line["caption"] for line in lines] == texts
    assert len(list(Path("all").glob("*.png"))) == len(texts)
    for line in lines:
        assert np.asarray(Image.open(Path("all") / line["file"])).shape == (16, 16, 3)
        assert {"seed", "number", "scale", "steps", "solver", "guidance", "run", "commit"} <= line.keys()


# ------------------------------------------------------------------------------------------------- runs and places


def of_another_task(model: Path) -> Path:
    copy = Path("depth-run").resolve()
    shutil.copytree(model, copy)
    config = json.loads((copy / "config.json").read_text())
    config["task"]["name"] = "depth"
    (copy / "config.json").write_text(json.dumps(config))
    return copy


RUNS = {
    "another task's": (of_another_task, "is a run of `crossflow depth`, this is `crossflow t2i`"),
    "a file": (lambda model: model / "config.json", "config.json"),
    "an empty folder": (lambda model: Path(Path("empty").mkdir() or "empty"), "empty is not a run folder"),
    "nothing": (lambda model: Path("nowhere"), "nowhere is not a run folder"),
    "a checkpoint": (lambda model: next(model.glob("checkpoints/step-*")), "is not a run folder"),
}


@pytest.mark.parametrize("kind", RUNS)
def test_a_run_that_is_none_of_ours_is_named(model, capsys, kind):
    make, expected = RUNS[kind]
    path = str(make(model))
    for words in (
        ["sample", path, "a circle"],
        ["interpolate", path, "a circle", "a square"],
        ["arithmetic", path, "a circle"],
        ["evaluate", path, "--data", "shapes"],
        ["guidance", path, "--data", "shapes"],
    ):
        refused(capsys, words, expected)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sample", "--out", "a.jpg", "a circle"], "--out a.jpg must be a .png, or a folder"),
        (["sample", "--out", "a.gif", "a circle"], "--out a.gif must be a .png, or a folder"),
        (["sample", "a circle", "--prompts", "p.txt"], "one of the two"),
        (["sample"], "at least one caption"),
        (["sample", "a circle", "-n", "0"], "-n must be at least 1, got 0"),
        (["sample", "a circle", "--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["sample", "--prompts", "missing.txt"], "cannot read the prompts missing.txt"),
        (["sample", "a circle", "--weak", "w"], "--weak w is for --guidance autoguidance"),
        (
            ["interpolate", "a circle", "a square", "--out", "a.webp"],
            "--out must end in .png or .gif, got a.webp",
        ),
        (["interpolate", "a circle", "a square", "--out", "a"], "--out must end in .png or .gif, got a"),
        (["interpolate", "a circle", "a square", "-n", "1"], "at least 2 pictures, got 1"),
        (["interpolate", "a circle", "a square", "-n", "0", "--out", "a.gif"], "at least 2 pictures, got 0"),
        (["arithmetic", "a circle", ",", "a square", "--out", "a.gif"], "a GIF shows one sum, got 2"),
        (["arithmetic", "a circle", "-", "a circle"], "nothing is left of a circle - a circle"),
        (["arithmetic", "a circle", "a square"], "expected a sign, got 'a square'"),
        (["guidance", "--scales", "1", "nan"], "scale must be a finite number, got nan"),
        (["guidance", "--captions", "1"], "--captions must be at least 2"),
    ],
)
def test_options_that_cannot_be_are_named(model, capsys, words, expected):
    refused(capsys, [words[0], str(model), *words[1:]], expected)


def test_a_gif_is_made_of_a_way_and_of_a_sum(model, capsys):
    captions = ["a circle", "a square", "two circles"]
    assert run(["t2i", "interpolate", str(model), *captions, "-n", "4", "--out", "way.gif"]) == 0
    assert (
        run(["t2i", "arithmetic", str(model), "a", "+", "a square", "-n", "5", "--out", "new/sum.gif"]) == 0
    )
    assert run(["t2i", "interpolate", str(model), *captions, "--x0", "mean", "--out", "mean.gif"]) == 0
    for path, most in (("way.gif", 12), ("new/sum.gif", 8), ("mean.gif", 92)):
        with Image.open(path) as moving:
            assert 1 < moving.n_frames <= most  # equal neighbours become one longer frame
            assert moving.info["loop"] == 0


def test_captions_go_onto_a_page_and_files_into_a_folder_if_not_told(model):
    Path("p.txt").write_text("a circle\n")
    assert run(["t2i", "sample", str(model), "a circle", "-n", "1"]) == 0
    assert run(["t2i", "sample", str(model), "--prompts", "p.txt", "-n", "1"]) == 0
    assert Path("samples.png").is_file()
    assert sorted(p.name for p in Path("samples").iterdir()) == [
        "00000-a-circle-seed0-0.png",
        "manifest.jsonl",
    ]
    assert run(["t2i", "sample", str(model), "--prompts", "p.txt", "-n", "1", "--out", "page.png"]) == 0
    assert Path("page.png").read_bytes() == Path("samples.png").read_bytes()
