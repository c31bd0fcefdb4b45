"""A public checkpoint becomes a run that draws what the public weights mean, and gives them back bit by bit."""

import json
import math
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cf_apps.cli import run
from cf_apps.engine.errors import ConfigError, RunError
from cf_apps.engine.saving.export import load_model
from cf_apps.t2i import model as model_module
from cf_apps.t2i.config import T2IConfig
from cf_apps.t2i.import_public import ImportRequest, converted, import_public, kind_of
from cf_apps.t2i.sample import Sampler
from cf_encoders import TextVE, text_ve_preset
from cf_encoders.public_weights import split_public
from cf_encoders.public_weights import to_public as text_ve_to_public
from cf_transformer import DiMR, DiT, DiTConfig, dit_preset, preset
from cf_transformer.public_dit import to_public_dit
from cf_transformer.public_weights import to_public as dimr_to_public
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
import t2i_public as public
from t2i_tiny import CPU, dice, recipe

CAPTIONS = ["a red circle", "zebra"]
LATENT_SCALE = 0.23010
NO_FROZEN_MODELS = "draws through the real frozen models: needs {}, which cf-apps has as the extra `all`"


@pytest.fixture(autouse=True)
def _away_from_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return public.write_checkpoint(tmp_path_factory.mktemp("public") / "t2i_256px_clip_dimr.pth")


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    pytest.importorskip("transformers", reason=NO_FROZEN_MODELS.format("transformers"))
    return public.write_clip(tmp_path_factory.mktemp("clip") / "clip")


@pytest.fixture(scope="module")
def t5(tmp_path_factory) -> Path:
    for library in ("transformers", "ftfy"):
        pytest.importorskip(library, reason=NO_FROZEN_MODELS.format(library))
    return public.write_t5(tmp_path_factory.mktemp("t5") / "t5")


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory) -> Path:
    pytest.importorskip("diffusers", reason=NO_FROZEN_MODELS.format("diffusers"))
    return public.write_autoencoder(tmp_path_factory.mktemp("vae") / "vae")


def stored(run_folder: Path) -> tuple[T2IConfig, nn.Module, nn.Module]:
    """What an imported run holds, as models again."""
    tensors, record = load_model(run_folder)
    config = T2IConfig.from_dict(record["task"]["config"])
    dtype = tensors["text_ve.body.layers.0.norm1.g"].dtype
    network = DiT(config.backbone) if isinstance(config.backbone, DiTConfig) else DiMR(config.backbone)
    text_ve = TextVE(config.text_ve)
    for name, model in (("backbone", network), ("text_ve", text_ve)):
        own = {key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")}
        model.to(dtype).load_state_dict(own)
    assert len(tensors) == len(network.state_dict()) + len(text_ve.state_dict())
    return config, network, text_ve


# ------------------------------------------------------------------------------------------------- the weights


@pytest.mark.parametrize("text_ve", [public.CLIP_VE, public.T5_VE], ids=["clip", "t5"])
@pytest.mark.parametrize("backbone", [public.DIMR, public.DIT], ids=["dimr", "dit"])
def test_an_imported_run_gives_the_public_file_back_to_the_bit(backbone, text_ve, tmp_path):
    state = public.public_state(backbone, text_ve)
    path = public.write_checkpoint(tmp_path / "in.pth", {f"module.{k}": v for k, v in state.items()})
    import_public(ImportRequest(path, tmp_path / "run"))
    config, network, encoder = stored(tmp_path / "run")
    assert (config.backbone, config.text_ve) == (backbone, text_ve)
    back = to_public_dit(network) if backbone is public.DIT else dimr_to_public(network)
    back |= text_ve_to_public(encoder)
    assert back.keys() == state.keys() - public.TOWER.keys()
    same = {name for name in back if torch.equal(back[name], state[name])}
    assert same >= back.keys() - {"pos_embed"}  # computed in float64, and rounded


def test_in_half_precision_every_weight_is_the_public_one_rounded(checkpoint, tmp_path):
    import_public(ImportRequest(checkpoint, tmp_path / "run", fp16=True))
    _, network, encoder = stored(tmp_path / "run")
    state = public.public_state()
    for name, tensor in (dimr_to_public(network) | text_ve_to_public(encoder)).items():
        assert tensor.dtype == torch.float16
        assert torch.equal(tensor, state[name].half())


RELEASED = {
    #       backbone, text encoder: presets                 pixels  language       tensors, parameters of both
    "256 clip": ("dimr-951m", "released-256-clip", 256, "clip", [1643, 232], [950_778_890, 110_156_512]),
    "256 t5": ("dimr-951m", "released-256-t5", 256, "t5-released", [1643, 238], [950_778_890, 165_197_440]),
    "512 clip": ("dimr-951m-512", "released-512-clip", 512, "clip", [2102, 248], [985_439_246, 97_482_344]),
    "512 t5": (
        "dimr-951m-512",
        "released-512-t5",
        512,
        "t5-released",
        [2102, 254],
        [985_439_246, 142_430_728],
    ),
    "512 t5 dit": (
        "dit-h-2",
        "released-512-t5",
        512,
        "t5-released",
        [372, 254],
        [1_068_977_936, 142_430_728],
    ),
}


@pytest.mark.parametrize("name", RELEASED)
def test_the_released_files_become_the_runs_they_are(name):
    """Names, shapes and counts of the five files at their full size, without their values."""
    network, encoder, image_size, language, tensors, parameters = RELEASED[name]
    with torch.device("meta"):
        if network.startswith("dit"):
            config = replace(dit_preset(network), channels=4, size=(64, 64), time_scale=1.0)
            backbone = to_public_dit(DiT(config)) | {"pos_embed": torch.empty(1, 1024, 1280)}
        else:
            config = replace(preset(network), indicator="released")
            backbone = dimr_to_public(DiMR(config))
        parts = split_public(backbone | text_ve_to_public(TextVE(text_ve_preset(encoder))))
    assert [len(parts[part]) for part in ("backbone", "context_encoder")] == tensors
    assert [sum(math.prod(t.shape) for t in part.values()) for part in parts.values()] == parameters
    found, state = converted(ImportRequest(Path("x.pth"), Path("run")), parts)
    assert (found.backbone, found.text_ve) == (config, text_ve_preset(encoder))
    assert (found.image_size, found.language.name, found.language.max_tokens) == (image_size, language, 77)
    assert (found.sample.solver, found.sample.steps, found.sample.scale) == ("euler", 50, 7.0)
    assert T2IConfig.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert {key.split(".")[0] for key in state} == {"backbone", "text_ve"}


# ------------------------------------------------------------------------------------------------- the pictures


def clip_features(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """As the public code takes them: the last hidden states, the network not told the mask."""
    from transformers import AutoTokenizer, CLIPTextModel

    read = AutoTokenizer.from_pretrained(folder)(
        CAPTIONS, padding="max_length", max_length=77, return_tensors="pt"
    )
    return CLIPTextModel.from_pretrained(folder)(read.input_ids).last_hidden_state, read.attention_mask.bool()


def t5_features(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """As the public code takes them: in bfloat16, the network told the mask, times 10. Cleaning changes no caption."""
    from transformers import AutoTokenizer, T5EncoderModel

    read = AutoTokenizer.from_pretrained(folder)(
        CAPTIONS, padding="max_length", max_length=77, return_tensors="pt"
    )
    network = T5EncoderModel.from_pretrained(folder, dtype=torch.bfloat16)
    hidden = network(read.input_ids, attention_mask=read.attention_mask).last_hidden_state
    return 10 * hidden, read.attention_mask.bool()


FEATURES = {"clip": clip_features, "t5": t5_features}


@torch.no_grad()
def by_hand(language: str, folder: Path, autoencoder: Path, run_folder: Path, steps: int) -> torch.Tensor:
    """CAPTIONS drawn from the mean of x_0 at scale 7 with transformers, diffusers and a loop."""
    from diffusers import AutoencoderKL

    _, network, encoder = stored(run_folder)
    tokens, mask = FEATURES[language](folder)
    x = encoder.eval()(tokens.half().float(), mask).mean  # features are remembered in float16
    for i in range(steps):
        t = torch.full((2,), i / steps)
        v_c, v_u = (network(x, t, torch.full((2,), null)) for null in (False, True))
        x = x + (v_u + 7.0 * (v_c - v_u)) / steps
    images = AutoencoderKL.from_pretrained(autoencoder).decode(x / LATENT_SCALE).sample
    return (images / 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize(
    ("language", "backbone", "text_ve"),
    [("clip", public.DIMR, public.CLIP_VE), ("t5", public.DIT, public.T5_VE)],
    ids=["clip dimr", "t5 dit"],
)
def test_an_imported_run_draws_what_its_parts_draw_by_hand(
    language, backbone, text_ve, request, autoencoder, tmp_path
):
    folder = request.getfixturevalue(language)
    path = public.write_checkpoint(tmp_path / "in.pth", public.public_state(backbone, text_ve))
    import_public(ImportRequest(path, tmp_path / "run", str(folder), str(autoencoder)))
    sampler = Sampler.from_run(tmp_path / "run", CPU)
    how = replace(sampler.model.config.sample, steps=3, temperature=0.0)
    images = sampler.draw(CAPTIONS, how, dice())
    assert images.shape == (2, 3, 64, 64)
    assert (images[0] - images[1]).abs().max() > 0.1
    expected = by_hand(language, folder, autoencoder, tmp_path / "run", steps=3)
    torch.testing.assert_close(images, expected, atol=1e-4, rtol=0)


def test_import_and_sample_are_two_commands(checkpoint, clip, autoencoder, tmp_path, capsys):
    shutil.copytree(clip, tmp_path / "models" / "clip")
    words = ["--language", "models/clip", "--codec", str(autoencoder), "--fp16"]
    assert run(["t2i", "import", str(checkpoint), "run", *words]) == 0
    said = capsys.readouterr()
    assert "DiMR for 64 px with clip text" in said.out
    assert "left out" in said.out
    assert "import again" not in said.out
    assert "import: 100%" in said.err
    (tmp_path / "elsewhere").mkdir()
    words = ["sample", str(tmp_path / "run"), "a red circle", "-n", "2", "--steps", "2", "--device", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "elsewhere")  # the run remembers where its models are
        assert run(["t2i", *words, "--out", "picture.png"]) == 0
    assert (tmp_path / "elsewhere" / "picture.png").exists()


# ------------------------------------------------------------------------------------------------- what to say


def refused(capsys, words: list[str], *expected: str) -> None:
    capsys.readouterr()
    assert run(["t2i", *words]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    for part in ("error: ", *expected):
        assert part in line


def test_the_table_says_what_the_file_holds_and_where_it_went(checkpoint, tmp_path, capsys):
    assert run(["t2i", "import", str(checkpoint), str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    state = split_public(public.public_state())
    for part, tensors in state.items():
        assert part.replace("_", " ") in said
        assert f"{len(tensors):,}" in said
        assert f"{sum(tensor.numel() for tensor in tensors.values()):,}" in said
    assert re.search(r"context encoder .* text_ve ", said)
    assert re.search(r"open clip output .* left out", said)
    assert "it needs the weights of its language model (clip): import again with --language PATH" in said
    assert "it needs the weights of its autoencoder: import again with --codec PATH" in said


def test_without_its_frozen_models_a_run_says_which_to_give_before_it_builds_anything(
    checkpoint, tmp_path, capsys, monkeypatch
):
    for name in ("DiMR", "TextVE", "build_codec", "language_model"):
        monkeypatch.setattr(model_module, name, None)  # calling it would be a TypeError
    run_folder = str(tmp_path / "run")
    sample, imported = ["sample", run_folder, "a circle"], ["t2i", "import", str(checkpoint), run_folder]
    assert run(imported) == 0
    refused(
        capsys, sample, "language clip and codec released-vae: no path", "--language PATH --codec PATH to"
    )
    assert run([*imported, "--codec", str(tmp_path)]) == 0
    refused(
        capsys,
        sample,
        "error: language clip: no path to the weights",
        "give --set language.path=PATH to train",
    )


def test_evaluating_an_imported_run_asks_for_data(checkpoint, tmp_path, capsys):
    assert run(["t2i", "import", str(checkpoint), str(tmp_path / "run")]) == 0
    refused(capsys, ["evaluate", str(tmp_path / "run")], "was imported and has no data", "--data FOLDER")


@pytest.mark.parametrize("option", ["--language", "--codec"])
def test_a_path_that_leads_nowhere_is_refused_and_a_hub_id_is_kept(option, checkpoint, tmp_path, capsys):
    out = tmp_path / "run"
    refused(capsys, ["import", str(checkpoint), str(out), option, "/no/such/folder"], option, "no folder")
    assert not out.exists()
    assert run(["t2i", "import", str(checkpoint), str(out), option, "openai/clip-vit-large-patch14"]) == 0
    config = json.loads((out / "config.json").read_text())["task"]["config"]
    assert config[option.removeprefix("--")]["path"] == "openai/clip-vit-large-patch14"


def test_the_language_model_can_be_told(checkpoint, tmp_path):
    request = ImportRequest(checkpoint, tmp_path / "run", language_model="t5-released")
    assert import_public(request).config.language.name == "t5-released"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context_encoder.layers.1.norm2.g": None}, "1 missing: context_encoder.layers.1.norm2.g"),
        ({"context_encoder.extra": torch.ones(2)}, "1 unexpected: context_encoder.extra"),
        ({"stages.1.extra": torch.ones(2)}, "1 unexpected: stages.1.extra"),
        (
            {"context_encoder.linear.bias": torch.ones(3)},
            r"context_encoder.linear.bias is \(3,\), expected \(512,\)",
        ),
        ({"stages.0.input_layer.1.weight": None}, "'stages.0.input_layer.1.weight' is missing"),
    ],
)
def test_a_tensor_that_does_not_belong_is_named_and_nothing_is_written(change, message, tmp_path):
    state = {name: t for name, t in (public.public_state() | change).items() if t is not None}
    path = public.write_checkpoint(tmp_path / "in.pth", state)
    with pytest.raises(ConfigError, match=f"in.pth: .*{message}"):
        import_public(ImportRequest(path, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_text_encoder_and_network_must_have_one_latent(tmp_path):
    state = public.public_state(text_ve=replace(public.CLIP_VE, latent=(4, 4, 4)))
    with pytest.raises(
        ConfigError, match=r"context_encoder.linear.weight is \(128, 308\), expected \(512, 308\)"
    ):
        import_public(ImportRequest(public.write_checkpoint(tmp_path / "in.pth", state), tmp_path / "run"))


def test_files_that_are_no_checkpoint_are_refused(checkpoint, tmp_path):
    with pytest.raises(
        ConfigError, match=r"there is no file missing.pth; give a public CrossFlow checkpoint"
    ):
        import_public(ImportRequest(Path("missing.pth"), tmp_path / "run"))
    (tmp_path / "text.pth").write_text("not a checkpoint")
    (tmp_path / "cut.pth").write_bytes(checkpoint.read_bytes()[:5000])
    torch.save({"model": {"x": torch.ones(1)}}, tmp_path / "nested.pth")
    for name in ("text.pth", "cut.pth", "nested.pth"):
        with pytest.raises(ConfigError, match=f"{name} cannot be read as a public checkpoint"):
            import_public(ImportRequest(Path(name), tmp_path / "run"))
    no_network = {name: t for name, t in public.public_state().items() if not name.startswith("stages")}
    path = public.write_checkpoint(tmp_path / "part.pth", no_network)
    with pytest.raises(ConfigError, match=r"no tensor starts with 'stages.0.'"):
        import_public(ImportRequest(path, tmp_path / "run"))


def test_a_weight_too_large_for_half_precision_is_named(tmp_path):
    state = public.public_state()
    state["context_encoder.layers.0.norm1.b"][0] = 1e5
    path = public.write_checkpoint(tmp_path / "in.pth", state)
    with pytest.raises(
        ConfigError, match=r"text_ve.body.layers.0.norm1.b has values that torch.float16 cannot"
    ):
        import_public(ImportRequest(path, tmp_path / "run", fp16=True))
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------------- the folder


def test_only_an_earlier_import_is_written_over(checkpoint, tmp_path):
    import_public(ImportRequest(checkpoint, tmp_path / "run"))
    import_public(ImportRequest(checkpoint, tmp_path / "run", language="owner/clip"))
    assert stored(tmp_path / "run")[0].language.path == "owner/clip"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.png").write_bytes(b"")
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "config.json").write_text('{"task": {}}')
    (tmp_path / "file").write_bytes(b"")
    for name in ("photos", "trained", "file"):
        with pytest.raises(RunError, match=f"{name} holds something else than an earlier import"):
            import_public(ImportRequest(checkpoint, tmp_path / name))


def test_an_earlier_import_survives_one_that_fails(checkpoint, tmp_path, monkeypatch):
    import_public(ImportRequest(checkpoint, tmp_path / "run"))
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.is_file()}

    def full_disk(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    with pytest.raises(RunError, match=r"cannot write .*run: no space left on device; make room"):
        import_public(ImportRequest(checkpoint, tmp_path / "run", fp16=True))
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.is_file()} == before


def test_a_dit_is_a_backbone_like_another():
    config = replace(recipe().model, backbone=replace(public.DIT, channels=3, size=(16, 16)))
    assert T2IConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert kind_of(config) == "DiT for 16 px with vocab text"
    with pytest.raises(ConfigError, match="2 weights for 1 stages"):
        replace(config, loss=replace(config.loss, scale_weights=(0.1, 1.0)))
