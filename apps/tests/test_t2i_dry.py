"""The dry run: the whole road with random frozen parts, in small; and what it leaves behind."""

import json
import sys
from pathlib import Path

import pytest
import torch
from cf_apps.cli import run as crossflow
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.ranks.world import World
from cf_apps.t2i.dry import frozen
from cf_apps.t2i.dry import run as run_module
from cf_apps.t2i.dry.frozen import random_parts
from cf_apps.t2i.dry.run import DryRequest, cuts, draw_pictures, dry_run, workplace
from cf_apps.t2i.presets import PRESETS
from cf_apps.t2i.scaling.model import CHECKPOINT, FP32
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from t2i_public import WIDTH, write_autoencoder, write_clip
from t2i_tiny import CPU, SETTINGS, flags

ALONE = World.alone(CPU)
THROUGH_CLIP = SETTINGS | {
    "language.name": "clip", "language.width": WIDTH, "language.max_tokens": 77, "codec.name": "sd-vae",
    "text_ve.token_width": WIDTH, "text_ve.max_tokens": 77, "text_ve.latent": [4, 8, 8], "text_ve.patch": 4,
    "backbone.channels": 4, "backbone.size": [8, 8], "image_size": 64, "tower_sees": "image",
    "image_tower": {"image": [3, 64, 64], "latent": [4, 8, 8], "stages": [8, 8], "hidden": 16},
}  # fmt: skip
del THROUGH_CLIP["fit.batch_size"]


@pytest.fixture
def small(monkeypatch):
    """frozen parts of the real kinds, but tiny"""

    def into(write, path: Path) -> None:
        path.rmdir()
        write(path)

    monkeypatch.setitem(frozen.LANGUAGE_MODELS, "clip", lambda path, layers: into(write_clip, path))
    monkeypatch.setitem(frozen.CODECS, "sd-vae", lambda path, layers: into(write_autoencoder, path))


def test_the_whole_road_is_taken_and_told(small, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--preset", "tiny", "--dry", "--layers", "2", "--out", str(out), "--device", "cpu"]
    assert crossflow(["t2i", "train", *options, *flags(THROUGH_CLIP)]) == 0
    told = capsys.readouterr().out
    assert "random weights: language, codec" in told
    facts = json.loads((out / "dry.json").read_text())
    assert list(facts["stages"]) == [
        "draw pictures and frozen weights", "extract", "build the model", "two steps, checkpoint, export",
        "read the checkpoint again", "open the exported model",
    ]  # fmt: skip
    found = facts["found"]
    assert [set(step) for step in found["losses"]] == [{"flow", "encoder", "kl", "mean", "total"}] * 2
    assert found["batch_size"] == 2
    assert found["kb_a_sample"].keys() == {"all", "latents", "features", "pictures"}
    assert found["kb_a_sample"]["latents"] == pytest.approx(2 * 4 * 8 * 8 / 1e3, abs=0.01)
    # weights, average, two moments; and a count of steps for every tensor
    files = (out / "run" / "checkpoints" / "step-00000002").glob("*.safetensors")
    tensors = [tensor for path in files for tensor in load_file(path).values()]
    counts = sum(tensor.nbytes for tensor in tensors if tensor.ndim == 0)
    assert sum(t.nbytes for t in tensors) == pytest.approx(
        CHECKPOINT * FP32 * found["trained_parameters"], abs=counts
    )


def test_a_dry_run_without_a_folder_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    asked = DryRequest("tiny", 1, overrides=SETTINGS)
    with dry_run(asked, ALONE) as (folder, run):
        assert folder.parent == tmp_path
        assert (run.done.fit.batch_size, run.random) == (4, ())
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def broken(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "extract", broken)
    with pytest.raises(KeyboardInterrupt), dry_run(DryRequest("tiny", out=tmp_path / "out"), ALONE):
        pass
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(ConfigError, match="is not empty"), workplace(tmp_path, ALONE):
        pass
    assert (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("preset", "key"), [("paper-256", "backbone.stages"), ("cross-attention-1.04b", "backbone.dimr.stages")]
)
def test_layers_cut_every_stage_and_nothing_else(preset, key):
    config = PRESETS[preset]().model
    found = cuts(config, 2)
    assert [stage["n_blocks"] for stage in found[key]] == [2, 2]
    assert [stage["d_model"] for stage in found[key]] == [s.d_model for s in config.network.stages]
    assert found.get("text_ve.depth") == (None if config.text_ve is None else 2)


def test_pictures_are_of_the_size_asked_for_and_repeat(tmp_path):
    from PIL import Image

    draw_pictures(tmp_path / "a", 3, 40, seed=1)
    draw_pictures(tmp_path / "b", 3, 40, seed=1)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == [f"{i:04}.{end}" for i in range(3) for end in ("png", "txt")]
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
    assert Image.open(tmp_path / "a" / "0000.png").size == (40, 40)


def test_a_frozen_part_without_a_random_one_is_refused(tmp_path):
    config = PRESETS["paper-256"]().model
    other = type(config).from_dict({**config.to_dict(), "codec": {**config.to_dict()["codec"], "name": "flux-vae"},
                                    "language": {**config.to_dict()["language"], "path": "here"}})  # fmt: skip
    with pytest.raises(ConfigError, match=r"no random codec flux-vae, .*; give --set codec.path=PATH"):
        random_parts(other, tmp_path, 1, 0)


def refusal(capsys, *options: str) -> str:
    assert crossflow(["t2i", "train", *options]) == 2
    return capsys.readouterr().err


def test_options_that_do_not_go_together_are_refused(capsys):
    assert "--data, --steps cannot go with --dry" in refusal(
        capsys, "--dry", "--data", "shapes", "--steps", "3"
    )
    assert "--layers is for --dry" in refusal(capsys, "--out", "x", "--layers", "2")
    assert "no --out" in refusal(capsys)
    assert "layers must be" in refusal(capsys, "--dry", "--layers", "0").replace("--layers", "layers")


def test_the_language_models_have_the_shapes_of_the_real_ones(tmp_path):
    """CLIP's alone: the others take gigabytes"""
    from cf_encoders import language_model

    random_ = frozen.clip_text(tmp_path, 1)
    assert random_ is None
    features = language_model("clip", tmp_path, max_tokens=77)(["a red circle", "two"])
    assert features.tokens.shape == (2, 77, 768)
    assert torch.isfinite(features.tokens).all()
