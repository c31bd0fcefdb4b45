"""The page that shows how to add a task is true: the task it builds trains, scores, draws, and is told apart."""

import contextlib
import io
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from cf_apps.cli import run

PAGE = Path(__file__).resolve().parents[2] / "docs" / "new_task.md"
# Fewer pictures, a smaller network and fewer steps of the solver than on the page: they take most of the time.
SMALLER = [
    ("colour/sample.py", ("scoring, 256", "scoring, 12")),
    ("colour/config.py", ("d_model=128, n_blocks=3", "d_model=32, n_blocks=1")),
    ("colour/config.py", ("d_model=32, n_blocks=3", "d_model=16, n_blocks=1")),
    ("colour/config.py", ("steps=20", "steps=2")),
]
BLOCK = re.compile(r"^```python\n# (colour/\w+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the page is in the repository, not in the wheel")


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it said on stderr."""

    returncode: int
    said: io.StringIO

    @property
    def stderr(self) -> str:
        return self.said.getvalue()


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with the package of the page in it, and a run of a few steps."""
    folder = tmp_path_factory.mktemp("home")
    blocks = dict(BLOCK.findall(PAGE.read_text(encoding="utf-8")))
    assert sorted(blocks) == [f"colour/{name}.py" for name in ("cli", "config", "sample", "task")]
    (folder / "colour").mkdir()
    (folder / "colour" / "__init__.py").touch()
    for name, code in blocks.items():
        for file, (page, here) in SMALLER:
            if file == name:
                assert page in code, f"{name} on the page no longer says {page!r}"
                code = code.replace(page, here)
        (folder / name).write_text(code, encoding="utf-8")
    assert crossflow(folder, "train", "--out", "run", "--steps", "3", "--batch-size", "4").returncode == 0
    return folder


def crossflow(home: Path, *words: str, task: str = "colour") -> Done:
    """The command as a user types it in that folder."""
    here, said = os.getcwd(), io.StringIO()
    os.chdir(home)
    try:
        with contextlib.redirect_stderr(said):
            return Done(run([task, *words]), said)
    finally:
        os.chdir(here)


def test_each_file_of_the_page_is_short():
    for name, code in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        assert len(code.splitlines()) <= 90, name


def test_the_demo_of_the_new_task_writes_what_people_look_at(home):
    done = crossflow(home, "demo", "--minutes", "0.002", "--out", "demo")
    assert done.returncode == 0, done.stderr
    report = json.loads((home / "demo" / "report.json").read_text())
    assert report["scores"].keys() == {"coloured", "left grey"}
    assert {"colours.png", "model.safetensors"} <= {path.name for path in (home / "demo").iterdir()}


def test_the_new_task_evaluates_and_draws(home):
    from PIL import Image

    scored = crossflow(home, "evaluate", "run", "--split", "val", "--out", "scores.json")
    assert scored.returncode == 0, scored.stderr
    grey = json.loads((home / "scores.json").read_text())["left grey"]
    assert 10 < grey["psnr"] < 30
    Image.new("L", (51, 40), 90).save(home / "old.jpg")
    drawn = crossflow(home, "sample", "run", "old.jpg")
    assert drawn.returncode == 0, drawn.stderr
    assert (home / "coloured.png").exists()


def test_the_new_task_reaches_its_config_from_the_command_line(home):
    done = crossflow(
        home, "train", "--out", "noisy", "--steps", "1", "--batch-size", "4", "--set", "sigma=0.5"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((home / "noisy" / "config.json").read_text())["task"]["config"]["sigma"] == 0.5
    wrong = crossflow(home, "train", "--out", "wrong", "--set", "sgima=0.5")
    assert wrong.returncode == 2
    assert "known: " in wrong.stderr
    assert "sigma" in wrong.stderr


def test_runs_of_the_new_task_are_told_apart(home):
    other = crossflow(home, "sample", "run", "a red circle", task="t2i")
    assert other.returncode == 2
    assert "is a run of `crossflow colour`, this is `crossflow t2i`" in other.stderr
    missing = crossflow(home, "sample", "nowhere", "old.jpg")
    assert missing.returncode == 2
    assert "Traceback" not in missing.stderr


def test_a_resumed_run_of_the_new_task_is_the_uninterrupted_one(home):
    def train(out: str, steps: int, *more: str) -> None:
        done = crossflow(home, "train", "--out", out, "--steps", str(steps), "--batch-size", "4", *more)
        assert done.returncode == 0, done.stderr

    train("parts", 2, "--set", "fit.schedule=constant")
    train("parts", 4, "--set", "fit.schedule=constant", "--resume")
    train("whole", 4, "--set", "fit.schedule=constant")
    ends = [(home / name / "model.safetensors").read_bytes() for name in ("parts", "whole")]
    assert ends[0] == ends[1]
