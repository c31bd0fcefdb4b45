"""A run that goes on keeps what it measured when it began, though its data have changed: weights are tied to it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cf_apps.cli import run
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
import caption_tiny
import depth_tiny
import superres_tiny
from command_line import refused
from depth_layouts import write_own, write_png16

PATCHES = ["--set", 'codec={"name": "patch-dct", "patch": 4, "keep": 3}']
COARSE = ["--set", "backbone.size=[4, 4]", "--set", "backbone.stages=" + json.dumps(
    [{"kind": "transformer", "d_model": 16, "n_blocks": 1, "patch": 2, "n_heads": 2}]
)]  # fmt: skip


def write_pictures(folder: Path, brightest: int) -> Path:
    folder.mkdir(exist_ok=True)
    for i in range(24):
        pixels = np.random.default_rng(i).integers(0, brightest, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def of_text(data: Path, tmp_path: Path) -> list[str]:
    return [
        "caption",
        "train-text",
        *caption_tiny.flags(caption_tiny.TEXT_SETTINGS | caption_tiny.FIT_SETTINGS),
    ]


def of_captions(data: Path, tmp_path: Path) -> list[str]:
    text = tmp_path / "text"
    assert run([*of_text(data, tmp_path), "--data", str(data), "--out", str(text), "--steps", "1"]) == 0
    settings = caption_tiny.flags(caption_tiny.SETTINGS | caption_tiny.FIT_SETTINGS)
    return ["caption", "train", "--text", str(text), *settings]


def of_depth(data: Path, tmp_path: Path) -> list[str]:
    return ["depth", "train", *depth_tiny.flags(scaling__kind="log", scaling__near=None, scaling__far=None)]


def of_superres(data: Path, tmp_path: Path) -> list[str]:
    return ["superres", "train", *superres_tiny.flags(), *PATCHES, *COARSE]


def captioned(folder: Path) -> Path:
    return caption_tiny.write_folder(folder)


def recaptioned(folder: Path) -> None:
    for i, path in enumerate(sorted(folder.glob("*.txt"))):
        path.write_text(f"quite another picture, number {i}")
        Image.new("RGB", (20, 18), (255, 7 * i % 256, 255)).save(path.with_suffix(".png"))


def rooms(folder: Path) -> Path:
    return write_own(folder, [f"{room}/{i}" for room in "abcdef" for i in range(2)])


def deeper(folder: Path) -> None:
    for path in folder.glob("depth/*/*.png"):
        write_png16(path, np.linspace(3_000, 9_000, 12 * 16).round().reshape(12, 16))


CASES: dict[str, tuple[Any, Callable[[Path], Path], Callable[[Path], Any], tuple[str, ...]]] = {
    # the command, its data, how they change, and what of the run must not
    "text": (of_text, captioned, recaptioned, ("tokenizer", "config")),
    "caption": (of_captions, captioned, recaptioned, ("tokenizer", "config")),
    "depth": (of_depth, rooms, deeper, ("config",)),
    "superres": (of_superres, lambda it: write_pictures(it, 256), lambda it: write_pictures(it, 40), ("config",)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_was_measured_stays(case, tmp_path):
    command, written, changed, kept = CASES[case]
    data, out = written(tmp_path / "data"), tmp_path / "run"
    words = [*command(data, tmp_path), "--data", str(data), "--out", str(out), "--device", "cpu"]
    assert run([*words, "--steps", "2"]) == 0
    before = json.loads((out / "config.json").read_text())["task"]
    changed(data)
    other = tmp_path / "other"
    assert run([word if word != str(out) else str(other) for word in words] + ["--steps", "1"]) == 0
    anew = json.loads((other / "config.json").read_text())["task"]
    assert any(anew[part] != before[part] for part in kept)  # a new run measures something else
    assert run([*words, "--steps", "3", "--resume"]) == 0
    after = json.loads((out / "config.json").read_text())["task"]
    assert {part: after[part] for part in kept} == {part: before[part] for part in kept}


def test_another_codec_than_the_run_began_with_is_measured(tmp_path):
    data, out = captioned(tmp_path / "data"), tmp_path / "run"
    words = [*of_captions(data, tmp_path), "--data", str(data), "--out", str(out), "--device", "cpu"]
    assert run([*words, "--steps", "2"]) == 0
    before = json.loads((out / "config.json").read_text())["task"]["config"]
    other = ["--set", 'codec={"name": "patch-dct", "patch": 2, "keep": 3, "whitening": 1.0}']
    assert run([*words, *other, "--steps", "3", "--resume"]) == 0
    after = json.loads((out / "config.json").read_text())["task"]["config"]
    assert after["codec"]["whitening"] == 1.0
    assert len(after["codec"]["mean"]) == len(after["codec"]["std"]) == 3
    assert after["codec"]["std"] != before["codec"]["std"]
    assert (after["mean"], after["std"]) == (before["mean"], before["std"])


def test_a_run_of_another_task_is_not_gone_on_with(tmp_path, capsys):
    data, out = write_pictures(tmp_path / "data", 256), tmp_path / "run"
    words = ["--data", str(data), "--out", str(out), "--device", "cpu"]
    assert run([*of_superres(data, tmp_path), *words, "--steps", "1"]) == 0
    folder = captioned(tmp_path / "pairs")
    text = [*of_text(folder, tmp_path), "--data", str(folder), "--out", str(out), "--device", "cpu"]
    assert "is a run of `crossflow superres`; resume it with that" in refused(capsys, [*text, "--resume"])
