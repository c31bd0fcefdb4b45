"""A run starts from another: the same weights at the same shape, grown ones at twice the resolution."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from cf_apps.engine.commands.app import Setting, train
from cf_apps.engine.commands.recipe import TrainRequest, overridden
from cf_apps.engine.errors import CheckpointError, ConfigError, RunError
from cf_apps.engine.saving.checkpoint import checkpoint_folder, checkpoints, load_checkpoint
from cf_apps.engine.watching.log import read_log
from cf_apps.engine.watching.progress import Silence
from cf_apps.t2i import prepare as prepare_module
from cf_apps.t2i.app import APP
from cf_apps.t2i.grow import _grown_text_ve, doublings_between, grown_config, grown_tensors
from cf_apps.t2i.import_public import ImportRequest, import_public
from cf_apps.t2i.initial import Origin
from cf_apps.t2i.model import T2IModel, build
from cf_apps.t2i.prepare import prepare
from cf_apps.t2i.presets import t2i_preset
from cf_apps.t2i.sample import Sampler
from cf_encoders import PixelCodec, TextVE, TextVEConfig, VocabLanguageModel, Vocabulary, text_ve_preset
from cf_transformer import DiMR, StageConfig, preset
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
import t2i_public as public
from t2i_tiny import BASELINE, CAPTIONS, CPU, SETTINGS, dice, named, write_folder

ROUNDING = 1e-5  # of float32, where the same sums are taken in another order
HALF = 2e-3  # of weights that were stored in float16
SMALL_64 = {
    "language.width": 16,
    "language.max_tokens": 12,
    "text_ve.token_width": 16,
    "text_ve.max_tokens": 12,
    "text_ve.width": 16,
    "text_ve.heads": 2,
    "text_ve.mlp_hidden": 16,
    "backbone.stages": [
        {"kind": "transformer", "d_model": 16, "n_blocks": 1, "patch": 4, "n_heads": 2},
        {"kind": "convnext", "d_model": 16, "n_blocks": 1, "patch": 2},
        {"kind": "convnext", "d_model": 8, "n_blocks": 1, "patch": 1},
    ],
    "sample.steps": 2,
    "fit.precision": "fp32",
    "fit.batch_size": 4,
    "fit.warmup_steps": 0,
    "fit.log_every": 1,
    "fit.save_every": 1,
    "fit.keep_last": 9,
}
STAGES_32 = [
    {"kind": "transformer", "d_model": 16, "n_blocks": 1, "patch": 2, "n_heads": 2},
    {"kind": "convnext", "d_model": 16, "n_blocks": 1, "patch": 1},
]
TOWER = {"image": [24, 8, 8], "latent": [24, 8, 8], "stages": [8], "hidden": 16}
SMALL_32 = SMALL_64 | {"backbone.stages": STAGES_32, "image_tower": TOWER}


@pytest.fixture(autouse=True)
def _a_small_vocabulary_sample(monkeypatch):
    monkeypatch.setattr(prepare_module, "VOCABULARY_SAMPLE", 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "pairs")


def trained(
    out: Path, data: Path, steps: int = 2, *, resume: bool = False, like="tiny", settings=SMALL_32, **changes
):
    overrides = settings | named(changes)
    train(APP, TrainRequest(like, out, str(data), steps, resume=resume, overrides=overrides), CPU)
    return out


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory) -> Path:
    """A run of `tiny`, small, at 32 px."""
    return trained(tmp_path_factory.mktemp("runs") / "small", folder)


def averaged(run: Path) -> dict[str, torch.Tensor]:
    found = checkpoints(run)
    return load_checkpoint(found[max(found)])[0]["ema"]


def ready(init: Path, data: Path, like: str = "tiny", settings=SMALL_32, **changes):
    config = overridden(t2i_preset(like), settings | named(changes) | {"init": str(init)}).model
    return prepare(config, Setting(str(data), CPU, 0, Silence()))


def ready_64(init: Path, data: Path, **changes):
    return ready(init, data, "tiny-64", SMALL_64 | {"image_tower": grown_tower()} | named(changes))


def grown_tower() -> dict:
    return TOWER | {"image": [24, 16, 16], "latent": [24, 16, 16]}


# ------------------------------------------------------------------------------------------------- growing


def test_a_64_px_run_begins_with_the_32_px_run_grown(run, folder):
    it = ready_64(run, folder).task.model
    small = Sampler.from_run(run, CPU).model
    state = {n.removeprefix("backbone."): t for n, t in averaged(run).items() if n.startswith("backbone.")}
    small.backbone.load_state_dict(state)  # in full precision
    x_t, t = torch.randn(3, 24, 16, 16, generator=dice()), torch.tensor([0.0, 0.3, 1.0])
    with torch.no_grad():
        grown, expected = it.backbone.scales(x_t, t), small.backbone.scales(F.avg_pool2d(x_t, 2), t)
    assert len(grown) == 3
    for found, old in zip(grown, expected, strict=False):
        assert torch.allclose(found, old, atol=ROUNDING)
    assert not grown[-1].any()  # the new stage says nothing yet
    assert (expected[-1].abs().mean() > 0.1).item()


def test_the_text_encoder_means_what_it_meant_pooled(run, folder):
    it, small = ready_64(run, folder).task.model, Sampler.from_run(run, CPU).model
    own = nn.ModuleDict({name: small.modules[name] for name in ("text_ve", "language")})
    own.load_state_dict({n: t for n, t in averaged(run).items() if n.startswith(("text_ve.", "language."))})
    with torch.no_grad():
        large, old = it.encode_text(CAPTIONS), small.encode_text(CAPTIONS)
    assert large.mean.shape == (5, 24, 16, 16)
    assert torch.allclose(F.avg_pool2d(large.mean, 2), old.mean, atol=ROUNDING)
    for cell in (large.mean[..., 0::2, 1::2], large.mean[..., 1::2, 0::2]):
        assert torch.allclose(cell, old.mean, atol=ROUNDING)
    assert torch.allclose(large.logvar[..., 1::2, 1::2], old.logvar, atol=ROUNDING)


def test_the_constants_of_the_codec_and_the_words_are_those_of_the_run(run, folder):
    it, small = ready_64(run, folder).task.model, Origin.read(run)
    assert it.config.codec == small.config.codec
    assert it.config.codec.mean is not None
    assert list(it.language.vocabulary.words) == small.words


def test_only_layers_without_a_smaller_twin_start_fresh_and_are_said(run, folder):
    prepared = ready_64(run, folder)
    (note,) = prepared.notes
    assert note["event"] == "started from another run"
    assert note["run"] == str(run.resolve())
    # four times as many features enter the tower's head, and four times as many numbers leave it
    assert note["fresh"] == ["image_tower.head.fc1", "image_tower.head.fc2"]
    assert any("start fresh" in line and "image_tower.head.fc1" in line for line in prepared.said)
    it, old = prepared.task.model, averaged(run)
    assert torch.equal(
        it.modules["image_tower"].stages[0].conv.weight, old["image_tower.stages.0.conv.weight"]
    )
    assert torch.equal(it.modules["log_scale"].log_scale, old["log_scale.log_scale"])


def test_a_grown_run_trains_draws_and_names_where_it_came_from(run, folder, tmp_path):
    settings = SMALL_64 | {"init": str(run)}
    out = trained(tmp_path / "large", folder, 2, like="tiny-64", settings=settings)
    config = json.loads((out / "config.json").read_text())["task"]["config"]
    assert config["init"] == str(run.resolve())
    assert read_log(out, "event")[0]["run"] == str(run.resolve())
    it = Sampler.from_run(out, CPU)
    assert it.draw(["a red circle"], it.model.config.sample, dice()).shape == (1, 3, 64, 64)
    assert it.model.backbone.heads[2].conv.weight.any()  # the new stage learns


def test_a_grown_run_resumes_bit_for_bit_though_its_origin_is_gone_and_nobody_names_it(run, folder, tmp_path):
    origin = shutil.copytree(run, tmp_path / "origin")
    settings = SMALL_64 | {"init": str(origin)}
    whole = trained(tmp_path / "whole", folder, 3, like="tiny-64", settings=settings)
    again = shutil.copytree(whole, tmp_path / "again")
    for step in (2, 3):
        shutil.rmtree(checkpoint_folder(again, step))
    shutil.rmtree(origin)
    trained(again, folder, 3, like="tiny-64", settings=SMALL_64, resume=True)
    first, second = averaged(whole), averaged(again)
    assert all(torch.equal(first[name], second[name]) for name in first)
    before, after = (json.loads((it / "config.json").read_text())["task"] for it in (whole, again))
    assert after == before


def test_a_run_goes_on_with_its_own_words_and_constants_on_other_data(run, folder, tmp_path):
    again, other = shutil.copytree(run, tmp_path / "again"), write_folder(tmp_path / "data", ["a zebra"] * 6)
    trained(again, other, 3, resume=True)
    before, after = (json.loads((it / "config.json").read_text())["task"] for it in (run, again))
    assert after["vocabulary"] == before["vocabulary"]
    assert after["config"]["codec"] == before["config"]["codec"]
    assert after["data"] != before["data"]


def test_a_run_that_died_before_its_first_checkpoint_starts_from_its_origin_again(run, folder, tmp_path):
    settings = SMALL_64 | {"init": str(run)}
    whole = trained(tmp_path / "whole", folder, 1, like="tiny-64", settings=settings)
    again = shutil.copytree(
        whole, tmp_path / "again", ignore=shutil.ignore_patterns("step-*", "model.safetensors")
    )
    trained(again, folder, 1, like="tiny-64", settings=settings, resume=True)
    first, second = averaged(whole), averaged(again)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_of_another_task_does_not_go_on_here(run, folder, tmp_path):
    again = shutil.copytree(run, tmp_path / "again")
    record = json.loads((again / "config.json").read_text())
    (again / "config.json").write_text(json.dumps(record | {"task": {"name": "depth"}}))
    with pytest.raises(RunError, match="again is a run of `crossflow depth`; resume it with that"):
        trained(again, folder, 3, resume=True)


def test_a_run_that_lost_its_words_does_not_grow(run, folder):
    origin = Origin.read(run)
    kept = {name: t for name, t in origin.tensors.items() if not name.startswith("language.")}
    it = ready_64(run, folder).task.model
    with pytest.raises(CheckpointError, match=r"it lacks language\.embedding\.weight"):
        replace(origin, tensors=kept).copy_into(it, 0)


def test_what_grows_is_drawn_from_the_seed(run, folder):
    one, same = (ready_64(run, folder).task.model.backbone.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], same[name]) for name in one)


@pytest.mark.parametrize(
    "config",
    [
        TextVEConfig(6, 5, (3, 4, 2), width=8, heads=2, mlp_hidden=8, patch=2),
        TextVEConfig(6, 5, (3, 4, 2), width=8, heads=2, mlp_hidden=8, patch=1),
        TextVEConfig(6, 5, (3, 4, 2), kind="paper", width=8, heads=2, mlp_hidden=8, bottleneck=4),
        TextVEConfig(6, 5, (3, 4, 2), kind="released", width=8, heads=1, depth=1, bottleneck=4),
        TextVEConfig(6, 5, (3, 4, 2), width=8, heads=2, mlp_hidden=8, patch=2, variation="noise"),
    ],
    ids=["compact", "a query for each cell", "paper", "released", "noise"],
)
@pytest.mark.parametrize("f", [2, 4])
def test_every_kind_of_text_encoder_grows_by_repeating_cells(config, f):
    torch.manual_seed(0)
    small = public.shaken(TextVE(config), 1).eval()
    backbone = replace(
        preset("dimr-tiny"),
        channels=3,
        size=(4, 2),
        stages=(StageConfig("transformer", 16, 1, 2, 2), StageConfig("convnext", 16, 1, 1)),
    )
    base = overridden(t2i_preset("tiny"), SETTINGS | {"image_tower": None}).model
    language = replace(base.language, width=6, max_tokens=5)
    before = replace(base, text_ve=config, backbone=backbone, language=language)
    doublings = f.bit_length() - 1
    after = grown_config(before, doublings)
    if config.kind == "compact" and config.patch == 1:  # the other way to grow: more queries
        after = replace(after, text_ve=replace(after.text_ve, patch=1))
    state = {f"text_ve.{name}": t for name, t in small.state_dict().items()}
    state |= {f"backbone.{name}": t for name, t in DiMR(backbone).state_dict().items()}
    grown = grown_tensors(state, before, after, doublings, dice())
    large = TextVE(after.text_ve).eval()
    large.load_state_dict(
        {n.removeprefix("text_ve."): t for n, t in grown.items() if n.startswith("text_ve.")}
    )
    tokens, mask = torch.randn(2, 5, 6, generator=dice(2)), torch.ones(2, 5, dtype=torch.bool)
    with torch.no_grad():
        old, new = small(tokens, mask), large(tokens, mask)
    for was, now in ((old.mean, new.mean), (old.logvar, new.logvar)):
        assert torch.allclose(now, F.interpolate(was, scale_factor=f, mode="nearest"), atol=ROUNDING)


def test_paper_512_is_paper_256_grown_but_for_the_encoders_flat_layer():
    small, large = t2i_preset("paper-256").model, t2i_preset("paper-512").model
    assert doublings_between(small, large) == 1
    assert doublings_between(small, small) == 0
    with torch.device("meta"):
        one, two = (TextVE(text_ve_preset(f"paper-{size}")).state_dict() for size in (256, 512))
    changed = {n.split(".")[1] for n in one if n not in two or one[n].shape != two[n].shape}
    assert changed == {
        "narrow",
        "norm",
        "mean",
        "logvar",
    }  # 96 numbers a token, then 24: 60 M weights either way


def test_with_the_bottleneck_of_paper_256_the_flat_layer_grows_as_well():
    small, large = t2i_preset("paper-256").model.text_ve, t2i_preset("paper-512").model.text_ve
    large = replace(large, bottleneck=small.bottleneck)
    with torch.device("meta"):
        one, two = ({f"text_ve.{n}": t for n, t in TextVE(it).state_dict().items()} for it in (small, large))
    grown = one | _grown_text_ve(one, small, large, 2)
    assert {name: t.shape for name, t in grown.items()} == {name: t.shape for name, t in two.items()}


def test_the_grown_recipe_is_the_old_one_at_twice_the_size_with_the_kl_of_a_larger_sum():
    small = overridden(t2i_preset("tiny"), SMALL_32).model
    large = grown_config(small)
    assert (large.image_size, large.latent) == (64, (24, 16, 16))
    assert (large.text_ve.latent, large.text_ve.patch) == ((24, 16, 16), 4)
    assert (large.image_tower.image, large.image_tower.latent) == ((24, 16, 16), (24, 16, 16))
    assert large.loss.kl_weight == small.loss.kl_weight / 4
    assert large.backbone == overridden(t2i_preset("tiny-64"), SMALL_64).model.backbone
    with pytest.raises(ConfigError, match="scale_weights are of the old stages; set them to null"):
        grown_config(replace(small, loss=replace(small.loss, scale_weights=(0.5, 1.0))))


# ------------------------------------------------------------------------------------------------- finetuning


def test_finetuning_begins_with_every_averaged_weight_of_the_run(run, folder):
    prepared = ready(run, folder)
    it, old = prepared.task.modules, averaged(run)
    assert all(torch.equal(p, old[name]) for name, p in it.named_parameters())
    assert prepared.notes[0]["fresh"] == []
    assert not any("fresh" in line for line in prepared.said)


def test_of_an_exported_file_alone_the_weights_are_rounded_and_the_tower_is_fresh(run, folder, tmp_path):
    shutil.copytree(run, tmp_path / "given", ignore=shutil.ignore_patterns("checkpoints"))
    prepared = ready(tmp_path / "given", folder)
    it, old = prepared.task.modules, averaged(run)
    for name in ("text_ve", "backbone", "language"):
        assert all(
            torch.equal(p, old[f"{name}.{key}"].half().float()) for key, p in it[name].named_parameters()
        )
    assert prepared.notes[0]["fresh"] == ["image_tower", "log_scale"]


def test_another_loss_for_the_encoder_brings_its_own_fresh_parts(run, folder):
    prepared = ready(run, folder, loss__encoder="text-text")
    assert prepared.notes[0]["fresh"] == ["text_tower"]


def test_words_that_the_run_never_learned_are_said(run, tmp_path):
    data = write_folder(tmp_path / "data", ["a zebra left of a yak", *CAPTIONS])
    said = " ".join(ready(run, data).said)
    assert f"words are not among those that {run.resolve()} learned, e.g. zebra" in said
    assert list(ready(run, data).task.model.language.vocabulary.words) == Origin.read(run).words


def test_an_imported_run_in_half_precision_is_a_beginning_too(tmp_path):
    """Its language model and codec are not at hand here, so the parts that train are put together by hand."""
    path = public.write_checkpoint(tmp_path / "in.pth")
    import_public(ImportRequest(path, tmp_path / "run", fp16=True, language="owner/clip"))
    origin = Origin.read(tmp_path / "run")
    config = origin.adopted(replace(origin.config, language=replace(origin.config.language, path=None)))
    assert config.language.path == "owner/clip"
    language, codec = VocabLanguageModel(Vocabulary(["a"])), PixelCodec()

    def fresh(config) -> T2IModel:
        parts = {"text_ve": TextVE(config.text_ve), "backbone": DiMR(config.backbone)}
        return T2IModel(config, language, codec, nn.ModuleDict(parts))

    it = fresh(config)
    assert origin.copy_into(it, 0) == []
    own = it.modules.state_dict()
    assert all(torch.equal(own[name], t.float()) for name, t in origin.tensors.items())
    larger = fresh(grown_config(config))
    assert origin.copy_into(larger, 0) == []
    x_t, t = torch.randn(2, 4, 16, 16, generator=dice()), torch.tensor([0.2, 0.8])
    with torch.no_grad():
        found, old = larger.backbone.scales(x_t, t), it.backbone.scales(F.avg_pool2d(x_t, 2), t)
    for grown, was in zip(found, old, strict=False):
        assert torch.allclose(grown, was, atol=ROUNDING)


# ------------------------------------------------------------------------------------------------- refused


def test_a_beginning_that_does_not_fit_is_refused_in_one_line(run, folder, tmp_path):
    stages = [STAGES_32[0] | {"d_model": 24}, STAGES_32[1]]
    wide = [SMALL_64["backbone.stages"][0] | {"d_model": 24}, *SMALL_64["backbone.stages"][1:]]
    cases = [
        (lambda: ready(tmp_path / "no", folder), RunError, "is not a run folder"),
        (lambda: ready(run, folder, backbone__stages=stages), CheckpointError, "is of another model"),
        (lambda: ready(run, folder, text_ve__width=32), CheckpointError, "is of another model"),
        (
            lambda: ready_64(run, folder, backbone__stages=wide),
            ConfigError,
            r"its backbone grows to the stages .*\('transformer', 16, 1, 4\).* set backbone",
        ),
        (
            lambda: ready(run, folder, "tiny-cross-attention", BASELINE),
            ConfigError,
            "the source of .* is text, here it is noise",
        ),
        (
            lambda: ready(run, folder, settings=SETTINGS),
            ConfigError,
            "the codec of .* is patch-dct, here it is pixels",
        ),
        (
            lambda: ready(
                run,
                folder,
                codec__keep=12,
                backbone__channels=12,
                text_ve__latent=[12, 8, 8],
                image_tower=None,
            ),
            ConfigError,
            r"its latent is \(24, 8, 8\), this one \(12, 8, 8\)",
        ),
        (
            lambda: ready(
                run, folder, language__name="minilm", language__width=384, text_ve__token_width=384
            ),
            ConfigError,
            "the language model of .* is vocab, here it is minilm",
        ),
    ]
    for begin, error, words in cases:
        with pytest.raises(error, match=words) as found:
            begin()
        assert "\n" not in str(found.value)


def test_a_smaller_picture_and_a_size_between_are_refused():
    small = overridden(t2i_preset("tiny"), SMALL_32).model
    large = grown_config(small)
    with pytest.raises(ConfigError, match=r"its latent is \(24, 16, 16\), this one \(24, 8, 8\)"):
        doublings_between(large, small)
    between = replace(
        small,
        image_size=96,
        text_ve=replace(small.text_ve, latent=(24, 24, 24)),
        image_tower=None,
        backbone=replace(small.backbone, size=(24, 24)),
    )
    with pytest.raises(ConfigError, match="start from an equal one, or half as high and wide"):
        doublings_between(small, between)
    assert doublings_between(small, grown_config(small, 2)) == 2


def test_the_baseline_does_not_grow_and_is_finetuned_as_it_is(folder, tmp_path):
    out = trained(tmp_path / "run", folder, like="tiny-cross-attention", settings=BASELINE)
    it = ready(out, folder, "tiny-cross-attention", BASELINE).task.modules
    assert all(torch.equal(p, averaged(out)[name]) for name, p in it.named_parameters())
    with pytest.raises(ConfigError, match="only a DiMR whose source is the text grows"):
        grown_config(Origin.read(out).config)


def test_a_backbone_that_predicts_patches_cannot_grow():
    config = overridden(t2i_preset("tiny"), SETTINGS).model  # its last stage has patches of 4
    with pytest.raises(
        ConfigError, match="its backbone cannot grow: only a model whose last stage has patch 1"
    ):
        grown_config(config)
    assert build(config, Vocabulary(["a"]), CPU).config == config
