"""A run from captions to pictures: complete, resumable bit for bit, tolerant of broken samples."""

import json
import sys
from pathlib import Path

import pytest
import torch
from cf_apps.data.captioned import DataError
from cf_apps.data.captioned_shapes import BLOCK, _block_generator, held_out_captions, shapes_reader
from cf_apps.data.shapes_captions import OPEN
from cf_apps.data.shapes_render import render
from cf_apps.data.shapes_scene import draw_scenes
from cf_apps.data.sources import open_source
from cf_apps.engine.commands.app import train
from cf_apps.engine.commands.recipe import TrainRequest, fit_config, overridden
from cf_apps.engine.errors import ConfigError, RunError
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.saving.checkpoint import checkpoints, load_checkpoint
from cf_apps.engine.watching.log import read_log
from cf_apps.engine.watching.progress import Silence
from cf_apps.t2i import prepare as prepare_module
from cf_apps.t2i.app import APP
from cf_apps.t2i.evaluate import flow_loss_by_time, score_composition, score_pairs
from cf_apps.t2i.presets import t2i_preset
from cf_apps.t2i.sample import Sampler
from cf_eval import everything_right
from safetensors import safe_open

sys.path.insert(0, str(Path(__file__).parent))
from t2i_tiny import CAPTIONS, CPU, SETTINGS, dice, sampler, write_folder

HALF = 2e-3  # the exported weights are float16
TRAINS_ONLY = {
    "text-text": {"text_tower", "log_scale"},
    "reconstruction": {"text_decoder"},
    "none": set(),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "pairs")


@pytest.fixture(autouse=True)
def _a_small_vocabulary_sample(monkeypatch):
    monkeypatch.setattr(prepare_module, "VOCABULARY_SAMPLE", 64)  # drawing 4,096 scenes takes seconds


def run_to(out: Path, data: Path | str, steps: int, resume: bool = False, **changes) -> Path:
    overrides = SETTINGS | {key.replace("__", "."): value for key, value in changes.items()}
    result = train(APP, TrainRequest("tiny", out, str(data), steps, resume=resume, overrides=overrides), CPU)
    assert (result.step, result.finished) == (steps, True)
    return out


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory) -> Path:
    return run_to(tmp_path_factory.mktemp("runs") / "run", folder, 4)


def weights(run: Path) -> dict[str, torch.Tensor]:
    found = checkpoints(run)
    parts, _ = load_checkpoint(found[max(found)])
    return {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


# ------------------------------------------------------------------------------------------------- the folder


def test_a_run_folder_is_complete(run, folder):
    assert {path.name for path in run.iterdir()} == {
        "config.json",
        "log.jsonl",
        "checkpoints",
        "model.safetensors",
    }
    config = json.loads((run / "config.json").read_text())
    assert config["task"]["data"] == str(folder.resolve())
    assert {"a", "red", "circle", "above"} <= set(config["task"]["vocabulary"])
    assert [record["step"] for record in read_log(run)] == [1, 2, 3, 4]
    assert set(read_log(run)[0]["losses"]) == {"flow", "encoder", "kl", "mean", "total"}
    assert list(checkpoints(run)) == [2, 4]


def test_the_exported_file_holds_the_averaged_sampling_parts_in_half_precision(run):
    averaged = weights(run)
    with safe_open(run / "model.safetensors", framework="pt") as file:
        names = list(file.keys())
        assert {name.split(".")[0] for name in names} == {"language", "text_ve", "backbone"}
        for name in names:
            tensor = file.get_tensor(name)
            assert tensor.dtype == torch.float16
            assert torch.equal(tensor, averaged[f"ema/{name}"].half())


@pytest.mark.parametrize("kind", ["text-text", "reconstruction", "none"])
def test_each_loss_of_the_encoder_trains_and_only_what_draws_is_exported(kind, folder, tmp_path):
    out = run_to(tmp_path / "run", folder, 2, loss__encoder=kind)
    assert ("encoder" in read_log(out)[0]["losses"]) == (kind != "none")
    with safe_open(out / "model.safetensors", framework="pt") as file:
        assert {name.split(".")[0] for name in file.keys()} == {"language", "text_ve", "backbone"}  # noqa: SIM118
    assert {name.split("/")[1].split(".")[0] for name in weights(out) if name.startswith("weights")} == {
        "language", "text_ve", "backbone"} | TRAINS_ONLY[kind]  # fmt: skip
    assert Sampler.from_run(out, CPU).draw(["a red circle"], SampleConfig(steps=1), dice()).shape[0] == 1


@pytest.mark.parametrize("variation", ["learned", "noise", "none"])
def test_each_kind_of_encoder_trains_draws_and_is_scored(variation, folder, tmp_path):
    out = run_to(tmp_path / "run", folder, 2, text_ve__variation=variation, text_ve__sigma=0.7)
    losses, stats = read_log(out)[-1]["losses"], read_log(out)[-1]["stats"]
    assert ("kl" in losses) == (variation == "learned")
    sigma = {"learned": 0.7, "noise": 0.7, "none": 0.0}[variation]
    assert stats["sigma"] == pytest.approx(sigma, abs=0.02 if variation == "learned" else 1e-6)
    it = Sampler.from_run(out, CPU)
    assert it.draw(["a red circle"], SampleConfig(steps=1), dice()).shape == (1, 3, 16, 16)
    source = open_source(str(folder), 16)
    scores = score_pairs(it, source.train, SampleConfig(steps=1), Silence())
    assert all(loss > 0 for loss in scores["flow_loss_by_t"])


def test_training_lowers_the_loss(folder, tmp_path):
    run = run_to(tmp_path / "run", folder, 60, fit__lr=3e-3, fit__save_every=1000, loss__null_rate=0.0)
    totals = [record["losses"]["total"] for record in read_log(run)]
    assert sum(totals[-10:]) < 0.8 * sum(totals[:10])


# ------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("data", ["folder", "shapes"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(data, folder, tmp_path):
    source, even = (
        folder if data == "folder" else data,
        {"fit__schedule": "constant", "loss__mean_until": None},
    )  # whatever the last step
    whole = weights(run_to(tmp_path / "whole", source, 4, **even))
    run_to(tmp_path / "parts", source, 2, **even)
    before = weights(tmp_path / "parts")
    after = weights(run_to(tmp_path / "parts", source, 4, resume=True, **even))
    assert after.keys() == whole.keys()
    assert all(torch.equal(after[name], whole[name]) for name in whole)
    assert any(not torch.equal(before[name], whole[name]) for name in whole)


def test_a_run_is_not_overwritten_and_not_resumed_with_another_model(run, folder):
    with pytest.raises(RunError, match="pass --resume or choose another folder"):
        run_to(run, folder, 5)
    with pytest.raises(RunError, match="is of another model"):
        run_to(run, folder, 5, resume=True, image_tower__hidden=24)


# ------------------------------------------------------------------------------------------------- what follows


def test_a_run_can_be_sampled_from(run):
    it, again = Sampler.from_run(run, CPU), Sampler.from_run(run, CPU)
    captions, how = ["a red circle", "two blue squares"], it.model.config.sample
    images = it.draw(captions, how, dice())
    assert images.shape == (2, 3, 16, 16)
    assert torch.equal(images, again.draw(captions, how, dice()))
    averaged = weights(run)
    for name, tensor in it.model.backbone.state_dict().items():
        assert torch.allclose(tensor, averaged[f"ema/backbone.{name}"], rtol=HALF, atol=HALF)


def test_a_run_on_pairs_is_scored_by_distance_and_loss(run, folder):
    it = Sampler.from_run(run, CPU)
    source = open_source(str(folder), 16)
    scores = score_pairs(it, source.train, SampleConfig(steps=1), Silence())
    assert scores["count"] == len(source.train)
    assert scores["frechet_distance_of_mean_colours"] >= 0
    assert "mean colours" in scores["measured_as"]["protocol"]
    assert len(scores["flow_loss_by_t"]) == 5
    assert all(loss > 0 for loss in scores["flow_loss_by_t"])


def test_the_flow_loss_by_time_is_the_mean_square_error_of_the_velocity(run, folder):
    it, data = Sampler.from_run(run, CPU), open_source(str(folder), 16).train
    pairs = data.batch(torch.arange(len(data)))
    x_0, x_1 = it.encode(pairs.captions, dice()), it.model.encode_images(pairs.images)
    for place, found in enumerate(flow_loss_by_time(it, data)):
        t = (place + 0.5) / 5
        with torch.no_grad():
            v = it.model.backbone(t * x_1 + (1 - (1 - 1e-5) * t) * x_0, torch.full((len(data),), t))
        assert found == pytest.approx((v - (x_1 - (1 - 1e-5) * x_0)).square().mean().item(), rel=1e-4)


def test_a_run_on_shapes_is_scored_by_composition(tmp_path):
    run = run_to(tmp_path / "run", "shapes", 2, language__max_tokens=40, text_ve__max_tokens=40)
    it = Sampler.from_run(run, CPU)
    scored = score_composition(it, it.model.config.sample, Silence(), per_task=3, per_task_open=1)
    assert scored.scores["count"] == len(scored.captions) == len(scored.images) == len(scored.right) == 18
    assert 0 <= scored.scores["overall"] <= 1


def test_captions_that_leave_places_open_are_scored_apart(monkeypatch):
    """A sampler that draws nothing but, for such captions, the truth."""
    scenes = draw_scenes(BLOCK, _block_generator(-1, 0))  # where the first held-out captions come from
    truth = render(scenes, 32)[0].float() / 255
    readings = shapes_reader()(truth)
    unsaid = {caption.text: caption.expectation for caption in held_out_captions(2, rates=OPEN)}

    def draw(self, captions, how, generator):
        pictures = torch.ones(len(captions), 3, 32, 32)
        for picture, text in zip(pictures, captions, strict=True):
            if text in unsaid:
                rows = (row for row, seen in enumerate(readings) if everything_right(seen, unsaid[text]))
                picture.copy_(truth[next(rows)])
        return pictures

    monkeypatch.setattr(Sampler, "draw", draw)
    scored = score_composition(sampler(), SampleConfig(), Silence(), per_task=2, per_task_open=2)
    table = scored.table()
    assert (table["overall"], table["overall_places_open"], table["count"]) == (0.0, 1.0, 12)
    assert len(scored.captions) == len(scored.images) == len(scored.right) == 12


# ------------------------------------------------------------------------------------------------- the data


def test_bad_files_are_skipped_and_listed(folder, tmp_path, capsys):
    data = write_folder(tmp_path / "data")
    (data / "broken.png").write_bytes((data / "00.png").read_bytes()[:60])
    (data / "broken.txt").write_text("a broken picture")
    (data / "words.jpg").write_text("no picture at all")
    (data / "words.txt").write_text("words")
    (data / "silent.png").write_bytes((data / "01.png").read_bytes())
    (data / "empty.png").write_bytes(b"")
    (data / "empty.txt").write_text("nothing")
    run = run_to(tmp_path / "run", data, 2)
    (event,) = read_log(run, "event")
    listed = dict(event["samples"])
    assert set(listed) == {"broken.png", "words.jpg", "silent.png", "empty.png"}
    assert listed["silent.png"] == "no caption"
    assert "truncated" in listed["broken.png"]
    assert "not an image" in listed["words.jpg"]
    assert "4 samples were skipped" in capsys.readouterr().err


def test_captions_that_are_cut_are_counted_and_the_remedy_is_named(tmp_path, capsys):
    data = write_folder(tmp_path / "data", [*CAPTIONS, "a " * 30])
    run_to(tmp_path / "run", data, 1)
    said = capsys.readouterr().err
    assert "longer than the 12 tokens" in said
    assert "language.max_tokens=N" in said


def test_a_preset_without_data_asks_for_it(tmp_path):
    with pytest.raises(
        ConfigError, match=r"preset paper-256 has no data of its own; pass --data with .*folder"
    ):
        train(APP, TrainRequest("paper-256", tmp_path / "run"), CPU)
    assert not (tmp_path / "run").exists()


def test_what_can_be_known_is_refused_before_anything_is_written(tmp_path, folder):
    refused = [
        (
            TrainRequest("tiny", tmp_path / "run", str(tmp_path / "missing"), 1),
            DataError,
            "no such data folder",
        ),
        (TrainRequest("tyni", tmp_path / "run", str(folder), 1), ConfigError, "unknown preset"),
        (
            TrainRequest("tiny", tmp_path / "run", str(folder), 1, overrides={"fit.lrr": 1}),
            ConfigError,
            "unknown key",
        ),
        (
            TrainRequest("tiny", tmp_path / "run", "emoji", 1, overrides=SETTINGS),
            DataError,
            "image_size 32 and 64",
        ),
    ]
    for request, error, words in refused:
        with pytest.raises(error, match=words):
            train(APP, request, CPU)
    assert not (tmp_path / "run").exists()


def test_a_time_budget_takes_the_place_of_steps():
    recipe = overridden(t2i_preset("tiny"), {})
    request = TrainRequest("tiny", Path("x"), max_seconds=5.0, batch_size=8, lr=0.5, seed=7)
    config = fit_config(request, recipe)
    assert (config.steps, config.max_seconds, config.batch_size, config.lr, config.seed) == (
        None,
        5.0,
        8,
        0.5,
        7,
    )
