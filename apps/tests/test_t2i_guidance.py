"""Guidance by the indicator or a worse model, the options that choose it, and the search for its scale."""

import json
import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cf_apps.cli import run
from cf_apps.data.captioned import DataError
from cf_apps.data.captioned_shapes import held_out_captions, shapes_reader, split_of
from cf_apps.data.pairs import load_pairs
from cf_apps.engine.errors import CheckpointError, ConfigError, RunError
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.watching.progress import Silence
from cf_apps.t2i.drawing.options import T2IDrawing, run_folder, run_name, shipped_run
from cf_apps.t2i.drawing.pictures import Picture
from cf_apps.t2i.evaluate import score_pairs
from cf_apps.t2i.sample import Sampler
from cf_apps.t2i.scoring.guidance import (
    Measure,
    Value,
    colour_measure,
    composition_measure,
    measure_for,
    search,
)
from cf_apps.t2i.scoring.guidance_report import numbers, plot, strip, write_search
from cf_apps.t2i.weak import weak_velocity
from cf_eval import satisfies
from PIL import Image
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from t2i_tiny import CAPTIONS, CPU, baseline, dice, flags, sampler, write_folder

HOW = SampleConfig(scale=1.0, steps=3, solver="euler")
SUMS = 1e-5  # sums in another order


@pytest.fixture(scope="module")
def it() -> Sampler:
    return sampler(seed=0)


@pytest.fixture(scope="module")
def weak() -> Sampler:
    return sampler(seed=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "pairs", [f"a circle {i}" for i in range(99)])


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory) -> Path:
    """A run with the checkpoints of steps 1, 2 and 3."""
    out = tmp_path_factory.mktemp("runs") / "run"
    settings = ["--set", "fit.save_every=1", "--set", "fit.keep_last=9", "--lr", "0.01"]
    words = ["t2i", "train", "--data", str(folder), "--out", str(out), "--steps", "3", "--device", "cpu"]
    assert run([*words, *flags(), *settings]) == 0
    return out


# ------------------------------------------------------------------------------------------------- the field


def by_hand(good, bad, x, scale: float, steps: int):
    """Euler along bad + scale (good - bad), both conditional: Karras et al. 2024, eq. 3, for velocities."""
    for k in range(steps):
        t = torch.full((len(x),), k / steps)
        v_good, v_bad = (v(x, t, torch.zeros(len(x), dtype=torch.bool)) for v in (good, bad))
        x = x + (v_bad + scale * (v_good - v_bad)) / steps
    return x


@torch.no_grad()
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 2.0, 7.0])
def test_autoguidance_moves_away_from_the_weak_model(it, weak, scale):
    x_0 = it.encode(CAPTIONS, dice())
    guided = replace(it, weak=weak.model.backbone).flow(x_0, replace(HOW, scale=scale), CAPTIONS)
    expected = by_hand(it.model.backbone, weak.model.backbone, x_0, scale, HOW.steps)
    assert torch.allclose(guided.x, expected, atol=SUMS)
    assert (
        not torch.allclose(guided.x, by_hand(weak.model.backbone, it.model.backbone, x_0, scale, 3))
        or scale == 0.5
    )


def test_a_model_as_weak_as_itself_guides_nowhere(it):
    x_0 = it.encode(CAPTIONS, dice())
    alike = replace(it, weak=it.model.backbone).flow(x_0, replace(HOW, scale=5.0))
    assert torch.allclose(alike.x, it.flow(x_0, HOW).x, atol=SUMS)


def test_the_indicator_is_another_guidance(it, weak):
    x_0, how = it.encode(CAPTIONS, dice()), replace(HOW, scale=3.0)
    assert not torch.allclose(
        replace(it, weak=weak.model.backbone).flow(x_0, how).x, it.flow(x_0, how).x, atol=1e-2
    )


# ------------------------------------------------------------------------------------------------- the weak model


def averaged(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The backbone of a checkpoint as its files have it, the average where there is one."""
    parts = {name: load_file(checkpoint / f"{name}.safetensors") for name in ("weights", "ema")}
    both = parts["weights"] | parts["ema"]
    return {name.removeprefix("backbone."): v for name, v in both.items() if name.startswith("backbone.")}


def test_a_checkpoint_gives_its_own_averaged_backbone(trained):
    ours = Sampler.from_run(trained, CPU)
    seen = []
    for step in (1, 2):
        checkpoint = trained / "checkpoints" / f"step-{step:08d}"
        state = weak_velocity(checkpoint, ours).state_dict()
        seen.append(torch.cat([tensor.flatten() for tensor in state.values()]))
        for name, tensor in averaged(checkpoint).items():
            assert torch.equal(state[name], tensor)
    assert not torch.equal(*seen)


def test_a_run_gives_its_last_weights(trained):
    ours = Sampler.from_run(trained, CPU)
    state = weak_velocity(trained, ours).state_dict()
    for name, tensor in ours.model.backbone.state_dict().items():
        assert torch.equal(state[name], tensor)


def test_a_relative_place_is_found(trained, monkeypatch):
    monkeypatch.chdir(trained / "checkpoints")
    assert weak_velocity(Path("step-00000001"), Sampler.from_run(trained, CPU)) is not None


def test_what_cannot_be_the_weak_model_is_refused(trained, it, tmp_path):
    ours = Sampler.from_run(trained, CPU)
    with pytest.raises(RunError, match="nowhere is not a run folder"):
        weak_velocity(tmp_path / "nowhere", ours)
    with pytest.raises(CheckpointError, match="is not a complete checkpoint"):
        weak_velocity(trained / "checkpoints" / "step-00000007", ours)
    with pytest.raises(
        ConfigError, match=r"flows \(24, 8, 8\) of patch-dct, the model flows \(3, 16, 16\) of pixels"
    ):
        weak_velocity(shipped_run(), ours)
    with pytest.raises(ConfigError, match="this one starts from noise"):
        weak_velocity(trained, Sampler(baseline()))
    copy = tmp_path / "other"
    shutil.copytree(trained, copy)
    config = json.loads((copy / "config.json").read_text())
    config["task"]["name"] = "depth"
    (copy / "config.json").write_text(json.dumps(config))
    for path in (copy, copy / "checkpoints" / "step-00000001"):
        with pytest.raises(RunError, match="is a run of `crossflow depth`"):
            weak_velocity(path, ours)


# ------------------------------------------------------------------------------------------------- options


RUNS = SampleConfig(scale=3.0, steps=7, solver="heun", temperature=0.8)


@pytest.mark.parametrize(
    ("options", "scale", "temperature"),
    [
        ({}, 3.0, 0.8),
        ({"scale": 2.0}, 2.0, 0.8),
        ({"guidance": "none"}, 1.0, 0.8),
        ({"guidance": "none", "scale": 1.0}, 1.0, 0.8),
        ({"x0": "mean"}, 3.0, 0.0),
        ({"x0": "mean", "temperature": 0.0}, 3.0, 0.0),
        ({"x0": "sample", "temperature": 0.0}, 3.0, 0.0),
        ({"guidance": "autoguidance", "weak": Path("w")}, 3.0, 0.8),
        ({"guidance": "autoguidance", "weak": Path("w"), "scale": 2.0}, 2.0, 0.8),
    ],
)
def test_options_come_before_the_runs_own_choice(options, scale, temperature):
    how = T2IDrawing(**options).over(RUNS)
    assert how == replace(RUNS, scale=scale, temperature=temperature)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"x0": "mean", "temperature": 0.5}, "--x0 mean is temperature 0, not 0.5"),
        ({"guidance": "none", "scale": 2.0}, "--guidance none is scale 1, not 2"),
        ({"guidance": "autoguidance"}, "needs --weak"),
        ({"weak": Path("w")}, "--weak w is for --guidance autoguidance, not indicator"),
        ({"weak": Path("w"), "guidance": "none"}, "not none"),
    ],
)
def test_options_that_contradict_one_another_are_refused(options, expected):
    with pytest.raises(ConfigError, match=expected):
        T2IDrawing(**options).over(RUNS)


def test_autoguidance_wants_a_scale_where_the_run_draws_unguided():
    with pytest.raises(ConfigError, match="needs --scale"):
        T2IDrawing(guidance="autoguidance", weak=Path("w")).over(replace(RUNS, scale=1.0))


def test_the_shipped_model_goes_by_its_name_unless_a_folder_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (run_folder("tiny"), run_name("tiny")) == (shipped_run(), "tiny")
    (tmp_path / "tiny").mkdir()
    assert (run_folder("tiny"), run_name("tiny")) == (Path("tiny"), str(tmp_path / "tiny"))


def test_pictures_by_autoguidance_are_those_of_the_weak_field(trained, tmp_path):
    checkpoint = trained / "checkpoints" / "step-00000001"
    options = [
        "--guidance",
        "autoguidance",
        "--weak",
        str(checkpoint),
        "--scale",
        "4",
        "--seed",
        "2",
        "-n",
        "1",
    ]
    assert run(["t2i", "sample", str(trained), "a circle 1", *options, "--out", str(tmp_path)]) == 0
    (line,) = (json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines())
    assert (line["guidance"], line["weak"], line["scale"]) == ("autoguidance", str(checkpoint), 4.0)
    ours = Sampler.from_run(trained, CPU)
    x_0 = ours.encode(["a circle 1"], Picture(0, "a circle 1", 2, 0).generator())
    with torch.no_grad():
        x_1 = by_hand(ours.model.backbone, weak_velocity(checkpoint, ours), x_0, 4.0, 2)
    expected = (ours.decode(x_1)[0] * 255).round().permute(1, 2, 0)
    drawn = torch.from_numpy(np.array(Image.open(tmp_path / line["file"]))).float()
    assert (drawn - expected).abs().max() <= 1


# ------------------------------------------------------------------------------------------------- the search


def judged(value, higher: bool = True) -> tuple[Measure, list]:
    """A measure that is a function of the weak field and the scale, and a list of what it was asked."""
    asked = []

    def take(sampler, how, line):
        asked.append((sampler.weak, how.scale))
        line.show(1.0, "done")
        return Value(value(sampler.weak, how.scale), 0.01)

    return Measure("goodness", higher, CAPTIONS, take), asked


def test_the_search_finds_the_top_of_a_hill_and_the_bottom_of_a_valley(it):
    scales = [3.0, 0.0, 1.0, 2.0, 7.0, 2.0]
    hill, _ = judged(lambda weak, scale: 1 - (scale - 2.2) ** 2)
    valley, _ = judged(lambda weak, scale: (scale - 2.8) ** 2, higher=False)
    assert search(it, {"indicator": None}, scales, HOW, hill, Silence()).best().scale == 2
    assert search(it, {"indicator": None}, scales, HOW, valley, Silence()).best().scale == 3


def test_every_guidance_is_measured_at_every_scale_and_none_only_once(it, weak):
    worse = weak.model.backbone
    measure, asked = judged(lambda weak, scale: scale * (1 if weak is None else 2))
    found = search(it, {"indicator": None, "auto": worse}, [0.0, 1.0, 2.0], HOW, measure, Silence())
    assert asked == [(None, 0.0), (None, 1.0), (None, 2.0), (worse, 0.0), (worse, 2.0)]
    assert found.table() == {
        "indicator": {"scale 0": 0.0, "scale 1": 1.0, "scale 2": 2.0},
        "auto": {"scale 0": 0.0, "scale 1": 1.0, "scale 2": 4.0},  # at 1 it is no guidance: the same
    }
    assert (found.best().guidance, found.best().scale) == ("auto", 2)


def test_of_equals_the_least_guidance_is_best(it):
    flat, _ = judged(lambda weak, scale: 0.5)
    assert search(it, {"indicator": None}, [0.0, 1.5, 3.0], HOW, flat, Silence()).best().scale == 1.5


def test_the_search_says_what_does_not_stand_out_and_where_to_go_on(it):
    measure, _ = judged(lambda weak, scale: {1.0: 0.5, 2.0: 0.995, 3.0: 1.0}[scale])
    said = search(it, {"indicator": None}, [1.0, 2.0, 3.0], HOW, measure, Silence()).said()
    assert said[0] == "best goodness: 1.000, indicator at scale 3"
    assert said[1] == "within one standard error (0.010) of it: indicator 2"
    assert "at the edge" in said[2]
    valley, _ = judged(lambda weak, scale: abs(scale - 2.0) * 0.02, higher=False)
    said = search(it, {"indicator": None}, [1.0, 2.0, 2.25], HOW, valley, Silence()).said()
    assert said[1:] == ["within one standard error (0.010) of it: indicator 2.25"]


@pytest.mark.parametrize("scales", [[], [1.0, math.nan], [math.inf]])
def test_scales_that_are_none_are_refused_before_anything_is_drawn(it, scales):
    measure, asked = judged(lambda weak, scale: 0.0)
    with pytest.raises(ConfigError, match="scale"):
        search(it, {"indicator": None}, scales, HOW, measure, Silence())
    assert not asked


def test_progress_runs_from_start_to_end_without_a_step_back(it):
    shares = []

    class Spy(Silence):
        def show(self, done, text):
            shares.append(done)

    measure, _ = judged(lambda weak, scale: 0.0)
    search(it, {"a": None, "b": None}, [0.0, 2.0], HOW, measure, Spy())
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert all(share < 1 for share in shares[:-1])


# ------------------------------------------------------------------------------------------------- measures


def test_composition_is_measured_on_val_captions_by_the_reader(it):
    measure = composition_measure(per_task=2, seed=5)
    captions = held_out_captions(2, split="val")
    assert measure.captions == [caption.text for caption in captions]
    assert {split_of(text) for text in measure.captions} == {"val"}
    wide = sampler(0, language__max_tokens=40, text_ve__max_tokens=40)
    generator = dice(5)
    readings = shapes_reader()(wide.draw(measure.captions, HOW, generator))
    share = sum(satisfies(r, c.expectation) for r, c in zip(readings, captions, strict=True)) / 12
    found = measure.take(wide, HOW, Silence())
    assert found.value == pytest.approx(share)
    likely = (12 * share + 1) / 14
    assert found.error == pytest.approx(math.sqrt(likely * (1 - likely) / 12))


def test_pairs_are_measured_as_evaluate_does(it, folder):
    data = load_pairs(folder, image_size=16).val
    measure = colour_measure(data, captions=50, seed=4)
    assert not measure.higher_is_better
    assert len(measure.captions) == len(data)
    found = measure.take(it, HOW, Silence())
    assert found.error is None
    assert found.value == score_pairs(it, data, HOW, Silence(), seed=4)["frechet_distance_of_mean_colours"]


def test_the_data_chooses_the_measure(folder):
    assert len(measure_for("shapes", 16, 20, 0).captions) == 18  # six tasks alike
    assert measure_for(str(folder), 16, 20, 0).name == "Fréchet distance of mean colours"
    with pytest.raises(ConfigError, match="--captions must be at least 2, got 1"):
        measure_for("shapes", 16, 1, 0)
    with pytest.raises(DataError, match="no such data folder"):
        measure_for("nowhere", 16, 20, 0)


# ------------------------------------------------------------------------------------------------- the report


def found(it: Sampler):
    measure, _ = judged(lambda weak, scale: 1 - (scale - 2.2) ** 2)
    return search(
        it, {"indicator": None, "auto": it.model.backbone}, [0.0, 1.0, 2.0], HOW, measure, Silence()
    )


def test_the_numbers_say_everything(it):
    said = numbers(found(it))
    assert said["split"] == "val"
    assert said["captions"] == 5
    assert said["best"] == {
        "guidance": "indicator",
        "scale": 2.0,
        "value": pytest.approx(0.96),
        "error": 0.01,
    }
    assert [(row["guidance"], row["scale"]) for row in said["points"]] == [
        (name, scale) for name in ("indicator", "auto") for scale in (0.0, 1.0, 2.0)
    ]


def test_the_plot_has_a_line_for_each_guidance_and_a_ring_at_the_best(it):
    (axis,) = plot(found(it)).axes
    lines = {container.get_label(): container.lines[0] for container in axis.containers}
    assert list(lines) == ["indicator", "auto"]
    assert lines["auto"].get_xydata()[:, 0].tolist() == [0, 1, 2]
    assert lines["auto"].get_xydata()[:, 1].tolist() == pytest.approx([1 - 2.2**2, 1 - 1.2**2, 0.96])
    (ring,) = [line for line in axis.lines if line.get_fillstyle() == "none"]
    assert ring.get_xydata().tolist() == [[2, pytest.approx(0.96)]]


def test_the_strip_draws_each_caption_from_one_x_0(it, weak, monkeypatch):
    pages = []
    monkeypatch.setattr(
        "cf_apps.t2i.scoring.guidance_report.image_grid", lambda images, *a, **k: pages.append((images, a, k))
    )
    guidances = {"indicator": None, "auto": weak.model.backbone}
    strip(it, guidances, [0.0, 1.0, 3.0], CAPTIONS[:2], HOW, seed=9)
    ((images, (columns,), words),) = pages
    assert (len(images), columns) == (12, 3)
    assert torch.allclose(images[1], images[4], atol=SUMS)  # unguided, whichever the guidance
    assert not torch.allclose(images[2], images[5], atol=1e-3)
    assert words["captions"] == [CAPTIONS[0], *[""] * 5, CAPTIONS[1], *[""] * 5]
    assert words["row_titles"] == ["indicator", "auto"] * 2
    assert words["column_titles"] == ["scale 0", "scale 1, unguided", "scale 3"]


def test_the_report_is_three_files(it, tmp_path):
    files = write_search(found(it), it, {"indicator": None}, HOW, 0, tmp_path / "new", {"run": "r"})
    assert [path.name for path in files] == ["guidance.json", "guidance.png", "strip.png"]
    assert json.loads(files[0].read_text())["run"] == "r"
    for path in files[1:]:
        with Image.open(path) as picture:
            assert min(picture.size) > 100
    (tmp_path / "taken").write_text("")
    with pytest.raises(RunError, match="choose another --out"):
        write_search(found(it), it, {"indicator": None}, HOW, 0, tmp_path / "taken", {})


def test_the_command_searches_indicator_and_weak_checkpoints(trained, tmp_path, capsys):
    checkpoint = trained / "checkpoints" / "step-00000001"
    words = [
        "t2i",
        "guidance",
        str(trained),
        "--scales",
        "1",
        "2",
        "--weak",
        str(checkpoint),
        "--captions",
        "9",
    ]
    assert run([*words, "--out", str(tmp_path), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "within" not in said  # a distance has no error
    assert "best Fréchet distance of mean colours" in said
    record = json.loads((tmp_path / "guidance.json").read_text())
    assert {row["guidance"] for row in record["points"]} == {"indicator", "autoguidance by run, step 1"}
    assert (record["run"], record["seed"], record["sampling"]["steps"]) == (str(trained), 0, 2)
    assert "scale" not in record["sampling"]
    capsys.readouterr()
    assert run(["t2i", "guidance", str(trained), "--scale", "2"]) == 2
    assert "takes --scales, not --scale 2" in capsys.readouterr().err
