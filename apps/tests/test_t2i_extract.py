"""Extraction: the same shards from any number of processes and after any kill; and training from them."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cf_apps.cli import run as crossflow
from cf_apps.data.captioned import DataError
from cf_apps.data.shards.reading import open_shards
from cf_apps.data.shards.writing import Part, ShardWriter
from cf_apps.data.sources import open_source
from cf_apps.engine.commands.app import Setting, train
from cf_apps.engine.commands.recipe import TrainRequest
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.watching.log import read_log
from cf_apps.engine.watching.progress import Silence
from cf_apps.t2i.app import APP
from cf_apps.t2i.extract.command import Extraction, ExtractRequest, extract
from cf_apps.t2i.prepare import prepare
from cf_apps.t2i.sample import Sampler
from PIL import Image
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from t2i_public import WIDTH, write_clip
from t2i_tiny import CAPTIONS, CPU, SETTINGS, dice, flags, recipe, write_folder

TEXTS = [f"{caption}\n{caption}, drawn" for caption in CAPTIONS * 4]  # two phrasings each, 20 pictures
HALF = 2e-3  # features are kept in float16, and rounded before in another batch
EVEN = {"fit.schedule": "constant", "loss.mean_until": None}  # the same, whatever the last step is


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "pairs", TEXTS)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> dict[str, object]:
    """settings that read captions through a random CLIP, frozen"""
    path = write_clip(tmp_path_factory.mktemp("clip") / "model")
    return {
        "language.name": "clip", "language.path": str(path), "language.width": WIDTH, "language.max_tokens": 77,
        "text_ve.token_width": WIDTH, "text_ve.max_tokens": 77,
    }  # fmt: skip


def request(data: Path | str, out: Path, **changes) -> ExtractRequest:
    """the tiny recipe into shards of 6 pairs, encoded 4 at a time"""
    overrides = SETTINGS | changes.pop("settings", {})
    return ExtractRequest(
        str(data), out, "tiny", **{"shard_size": 6, "batch_size": 4, "overrides": overrides} | changes
    )


def extracted(data: Path | str, out: Path, **changes) -> Extraction:
    return extract(request(data, out, **changes), CPU, Silence())


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "shards").iterdir()}


@pytest.fixture(scope="module")
def shards(folder, tmp_path_factory) -> Path:
    """a finished set with mirror images, for a language model that is trained"""
    return extracted(folder, tmp_path_factory.mktemp("out") / "shards", flip=True).out


@pytest.fixture(scope="module")
def clip_shards(folder, clip, tmp_path_factory) -> Path:
    """a finished set with CLIP's features, and the pictures"""
    out = tmp_path_factory.mktemp("out") / "clip"
    return extracted(folder, out, settings=clip, pictures=True).out


# ------------------------------------------------------------------------------------------------- extraction


def test_a_set_counts_what_it_holds_and_says_what_made_it(clip_shards, folder, clip):
    manifest = json.loads((clip_shards / "manifest.json").read_text())
    assert (manifest["samples"], manifest["captions"], manifest["skipped"]) == (20, 40, 0)
    assert [shard["samples"] for shard in manifest["shards"]] == [6, 6, 6, 2]
    plan = manifest["plan"]
    assert (plan["source"], plan["latent"], plan["width"]) == (str(folder.resolve()), [3, 16, 16], WIDTH)
    assert plan["language"]["name"] == "clip"
    assert len(plan["language"]["fingerprint"]) == len(plan["codec"]["fingerprint"]) == 64
    assert "torch" in plan["made_with"]["versions"]


def test_three_processes_make_the_same_files_as_one(shards, folder, tmp_path):
    for index in (2, 0, 1):
        done = extracted(folder, tmp_path / "out", flip=True, part=Part(index, 3))
        assert (done.manifest is None) == (index != 1)
    assert files(tmp_path / "out") == files(shards)


def test_a_killed_extraction_goes_on_without_making_a_finished_shard_again(
    shards, folder, tmp_path, monkeypatch
):
    write, made = ShardWriter.write_shard, []

    def killed_in_the_third(self, unit, block, *what):
        if block == 2 and made.count(2) == 0:
            made.append(block)
            (self.folder / "shards/000000-000002.safetensors").write_bytes(b"half")  # and no record
            raise KeyboardInterrupt
        made.append(block)
        return write(self, unit, block, *what)

    monkeypatch.setattr(ShardWriter, "write_shard", killed_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        extracted(folder, tmp_path / "out", flip=True)
    with pytest.raises(DataError, match="is not finished"):
        open_shards(tmp_path / "out")
    done = extracted(folder, tmp_path / "out", flip=True)
    assert (made, done.made) == ([0, 1, 2, 2, 3], 2)
    assert files(tmp_path / "out") == files(shards)
    assert extracted(folder, tmp_path / "out", flip=True).made == 0


def test_a_damaged_shard_is_found_and_made_anew(shards, folder, tmp_path):
    out = extracted(folder, tmp_path / "out", flip=True).out
    path = out / "shards/000000-000001.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    done = extracted(folder, out, flip=True, verify=True)
    assert [name for name, _ in done.damaged] == ["000000-000001"]
    assert (done.made, files(out)) == (1, files(shards))
    assert extracted(folder, out, flip=True, verify=True).damaged == ()


def test_damaged_pictures_are_left_out_and_named(tmp_path):
    data = write_folder(tmp_path / "data")
    (data / "05.png").write_bytes((data / "05.png").read_bytes()[:60])
    (data / "07.txt").write_text(" ")
    (data / "mute.png").write_bytes((data / "01.png").read_bytes())
    done = extracted(data, tmp_path / "out")
    assert (done.manifest.samples, done.skipped) == (18, 3)
    reasons = {}
    for line in (tmp_path / "out/skipped.jsonl").read_text().splitlines():
        row = json.loads(line)
        reasons[row["name"]] = row["reason"]
    assert reasons.keys() == {"05.png", "07.png", "mute.png"}
    assert "truncated" in reasons["05.png"]
    assert any("3 pairs could not be used" in line for line in done.said())


def test_a_source_that_changed_is_refused(shards, folder, tmp_path):
    data = write_folder(tmp_path / "data")
    extracted(data, tmp_path / "out")
    Image.new("RGB", (9, 9)).save(data / "new.png")
    with pytest.raises(ConfigError, match=r"was begun otherwise \(contents was "):
        extracted(data, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"flip was True, is False now"):
        extracted(folder, shards)


def test_captions_that_are_cut_are_counted(tmp_path, clip):
    data = write_folder(tmp_path / "data", [*CAPTIONS, "a very long caption " * 30])
    done = extracted(data, tmp_path / "out", settings=clip)
    assert done.manifest.cut == 1
    assert any("1 of 6 captions are longer than the 77 tokens" in line for line in done.said())


# ------------------------------------------------------------------------------------------------- reading them


def test_stored_latents_and_features_are_what_the_frozen_parts_give(clip_shards, folder, clip):
    recipe_ = recipe(**{key.replace(".", "__"): value for key, value in clip.items()})
    from_pictures = prepare(recipe_.model, Setting(str(folder), CPU, 0, Silence())).task
    stored = open_shards(clip_shards)
    names, batch = stored.names(0, 30, seed=5), stored.stream(0, 30, seed=5)
    source = open_source(str(folder), 16)
    everything = torch.cat([source.train.images, source.val.images])
    said = [*source.train.captions, *source.val.captions]
    for name, caption, latent, picture in zip(
        names, batch.captions, batch.latents, batch.pictures, strict=True
    ):
        (which,) = (i for i in range(20) if _is(everything[i], int(name[:2])))
        assert caption in said[which]
        x_1 = from_pictures.model.encode_images(everything[which : which + 1])[0]
        assert torch.equal(latent, x_1.half().float())
        assert (picture.int() - everything[which].int()).abs().max() <= 4  # JPEG of one colour
    expected = from_pictures.model.language(batch.captions)
    assert torch.equal(batch.text.mask, expected.mask)
    assert torch.allclose(batch.text.tokens.float(), expected.tokens, rtol=HALF, atol=HALF)


def _is(image: torch.Tensor, i: int) -> bool:
    """whether this is picture i of write_folder"""
    return image[:, 0, 0].tolist() == [12 * i % 256, 255 - 9 * i % 256, 40]


def test_the_split_is_that_of_training_on_the_pictures(shards, folder):
    source = open_source(str(folder), 16)
    held = {tuple(image[:, 0, 0].tolist()) for image in source.val.images}
    val = replace(open_shards(shards), side="val")
    numbers = [int(name[:2]) for name in val.names(0, len(val), 0)]
    assert {(12 * i % 256, 255 - 9 * i % 256, 40) for i in numbers} == held
    assert len(open_shards(shards)) == len(source.train)


def test_a_rank_gets_its_rows_of_the_batch_of_one_process(clip_shards, clip):
    recipe_ = recipe(**{key.replace(".", "__"): value for key, value in clip.items()})
    task = prepare(recipe_.model, Setting(str(clip_shards), CPU, 3, Silence())).task
    whole = task.batch(14, 7)
    parts = [task.batch(14, 7, rows) for rows in (range(0, 3), range(3, 5), range(5, 7))]
    assert whole.captions == [text for part in parts for text in part.captions]
    assert torch.equal(whole.x_1, torch.cat([part.x_1 for part in parts]))
    assert torch.equal(whole.text.tokens, torch.cat([part.text.tokens for part in parts]))


def test_kept_pictures_are_what_an_image_tower_sees(clip_shards, clip):
    settings = clip | {"tower_sees": "image"}
    recipe_ = recipe(**{key.replace(".", "__"): value for key, value in settings.items()})
    batch = prepare(recipe_.model, Setting(str(clip_shards), CPU, 0, Silence())).task.batch(0, 4)
    assert batch.seen.shape == (4, 3, 16, 16)
    assert (batch.seen - batch.x_1).abs().max() <= 4 / 127.5 + 2e-3  # the codec is pixels in [-1, 1]


# ------------------------------------------------------------------------------------------------- training


def outcome(run: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """the exported weights, and the losses of every step"""
    return load_file(run / "model.safetensors"), [record["losses"] for record in read_log(run)]


def run_to(out: Path, data: Path, steps: int, settings: dict, resume: bool = False) -> Path:
    overrides = SETTINGS | EVEN | settings
    train(APP, TrainRequest("tiny", out, str(data), steps, resume=resume, overrides=overrides), CPU)
    return out


def test_a_run_from_shards_resumes_in_mid_epoch_bit_for_bit_and_draws(clip_shards, clip, tmp_path):
    whole, losses = outcome(run_to(tmp_path / "whole", clip_shards, 4, clip))
    ahead = clip | {"fit.prefetch": 2}  # a thread makes the batches: the same ones
    run_to(tmp_path / "parts", clip_shards, 2, clip)
    after, found = outcome(run_to(tmp_path / "parts", clip_shards, 4, ahead, resume=True))
    assert (after.keys(), found) == (whole.keys(), losses)
    assert all(torch.equal(after[name], whole[name]) for name in whole)
    drawn = Sampler.from_run(tmp_path / "parts", CPU).draw(["a red circle"], SampleConfig(steps=1), dice())
    assert drawn.shape == (1, 3, 16, 16)


def test_training_from_shards_does_not_load_the_language_model(clip_shards, clip, tmp_path):
    settings = {key: value for key, value in clip.items() if key != "language.path"}
    out = run_to(tmp_path / "run", clip_shards, 1, settings)
    config = json.loads((out / "config.json").read_text())["task"]["config"]
    assert config["language"]["path"] == clip["language.path"]  # the run can be drawn from


def test_words_are_learned_from_the_captions_that_shards_hold(shards, tmp_path):
    out = run_to(tmp_path / "run", shards, 1, {})
    assert {"red", "triangle", "drawn"} <= set(
        json.loads((out / "config.json").read_text())["task"]["vocabulary"]
    )


def refusal(data: Path, **settings) -> str:
    recipe_ = recipe(**{key.replace(".", "__"): value for key, value in settings.items()})
    with pytest.raises(ConfigError) as caught:
        prepare(recipe_.model, Setting(str(data), CPU, 0, Silence()))
    return str(caught.value)


def test_shards_of_another_model_are_refused(shards, clip_shards, clip):
    assert "was made with language.name = clip, the model has vocab" in refusal(clip_shards)
    assert "was made with language.name = vocab, the model has clip" in refusal(shards, **clip)
    assert "has no pictures; extract with --pictures" in refusal(shards, tower_sees="image")
    other = {"language.max_tokens": 20, "text_ve.max_tokens": 20}
    assert "language.max_tokens = 77, the model has 20" in refusal(clip_shards, **clip | other)


def test_another_codec_with_the_same_name_is_refused(shards, tmp_path):
    plan = json.loads((shards / "manifest.json").read_text())
    plan["plan"]["codec"]["fingerprint"] = "0" * 64
    other = tmp_path / "other"
    other.mkdir()
    (other / "shards").symlink_to(shards / "shards")
    (other / "manifest.json").write_text(json.dumps(plan))
    assert "the weights of codec pixels" in refusal(other)


def test_shards_hold_no_pictures_to_score_with_and_their_source_is_named(shards, folder):
    with pytest.raises(DataError, match=rf"holds shards, no pictures: .*--data {folder.resolve()}"):
        open_source(str(shards), 16)


# ------------------------------------------------------------------------------------------------- the command


def test_the_command_makes_shards_in_parts_and_says_how_to_train(folder, tmp_path, capsys):
    arguments = [
        "t2i",
        "extract",
        "--data",
        str(folder),
        "--out",
        str(tmp_path / "out"),
        "--shard-size",
        "6",
        *flags(),
    ]
    assert crossflow([*arguments, "--part", "0/2"]) == 0
    assert "are left to other processes" in capsys.readouterr().out
    assert crossflow([*arguments, "--part", "1/2"]) == 0
    assert "20 samples with 40 captions in 4 shards, " in capsys.readouterr().out
    assert crossflow([*arguments, "--part", "2/2"]) == 2
    assert "part 2/2 does not exist" in capsys.readouterr().err
