"""Presets are complete, and as large as the papers say."""

from dataclasses import replace

import pytest
import torch
from cf_apps.engine.commands.recipe import overridden
from cf_apps.engine.errors import ConfigError
from cf_apps.t2i.encoder_terms import encoder_parts
from cf_apps.t2i.model import SAMPLING_PARTS, _text_side, build, build_backbone
from cf_apps.t2i.presets import PRESETS, t2i_preset
from cf_apps.t2i.reader import Reader
from cf_encoders import ImageTower, TextVE, Vocabulary, language_model
from cf_transformer import CROSS_ATTENTION_PRESETS, CrossAttentionDiMR, DiMR, count_parameters
from cf_transformer import preset as dimr_preset

PAPER_256 = 950_778_890  # the released 256-px backbone, whose indicator is two scalars
PAPER_512 = 985_439_246
WIDTH = 1024
INDICATOR_AS_VECTORS = 2 * WIDTH - 2  # the paper's indicator: two vectors in place of two scalars


def on_meta(make):
    with torch.device("meta"):
        return make()


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_says_what_it_is_and_has_parts_that_fit(name):
    preset = t2i_preset(name)
    assert preset.about
    assert "\n" not in preset.about
    model = preset.model
    assert preset.fit.steps is not None
    if model.text_ve is None:
        reads = model.backbone.context_width if model.reader is None else model.reader.token_width
        assert reads == model.language.width
        return
    assert tuple(model.text_ve.latent) == model.latent
    assert model.text_ve.token_width == model.language.width
    assert model.text_ve.max_tokens >= model.language.max_tokens
    if model.image_tower is not None:
        side = model.image_size if model.tower_sees == "image" else model.latent[-1]
        assert (model.image_tower.image[-1], model.image_tower.latent) == (side, model.latent)


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(ConfigError, match=f"unknown preset 'tyni'; known: {', '.join(PRESETS)}"):
        t2i_preset("tyni")


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("released-256", PAPER_256),
        ("paper-256", PAPER_256 + INDICATOR_AS_VECTORS),
        ("paper-512", PAPER_512 + INDICATOR_AS_VECTORS),
    ],
)
def test_the_backbones_of_the_paper_have_its_number_of_parameters(name, count):
    assert count_parameters(on_meta(lambda: DiMR(t2i_preset(name).model.backbone))) == count


@pytest.mark.parametrize("name", ["paper-256", "paper-512", "released-256"])
def test_the_encoders_of_the_paper_can_be_built(name):
    model = t2i_preset(name).model
    assert count_parameters(on_meta(lambda: TextVE(model.text_ve))) > 1e6
    assert count_parameters(on_meta(lambda: ImageTower(model.image_tower))) > 1e6


def test_the_paper_recipe_has_its_numbers():
    paper, released = t2i_preset("paper-256"), t2i_preset("released-256")
    assert (paper.model.loss.kl_weight, paper.model.loss.null_rate, paper.model.loss.kl_form) == (
        1e-4,
        0.1,
        "paper",
    )
    assert (paper.fit.steps, paper.fit.batch_size, paper.fit.lr) == (600_000, 1024, 1e-4)
    assert (paper.model.loss.times, paper.model.sample.scale) == ("uniform", 7.0)
    assert (released.model.loss.kl_weight, released.model.loss.kl_form) == (1e-2, "released")
    assert (released.model.loss.times, released.fit.lr) == ("logit_normal", 1e-5)
    assert released.model.backbone.indicator == "released"
    assert t2i_preset("paper-512").fit.steps == 240_000


def test_what_tiny_needs_for_sampling_fits_into_eight_megabytes_of_fp16():
    words = Vocabulary([f"word{i}" for i in range(60)])  # the grammar has fewer
    tiny = build(t2i_preset("tiny").model, words, torch.device("cpu"))
    parts = [tiny.modules[name] for name in SAMPLING_PARTS if name in tiny.modules]
    assert 2 * sum(count_parameters(part) for part in parts) <= 8e6
    assert set(tiny.modules) - set(SAMPLING_PARTS) == {"image_tower", "log_scale"}


# ------------------------------------------------------------------------------------------------- the comparison


def test_the_tiny_baseline_is_as_large_as_tiny():
    ours, rival = (t2i_preset(name).model for name in ("tiny", "tiny-cross-attention"))
    counts = [
        sum(count_parameters(part) for part in on_meta(parts))
        for parts in (
            lambda: (TextVE(ours.text_ve), DiMR(ours.backbone)),
            lambda: (Reader(rival.reader), CrossAttentionDiMR(rival.backbone)),
        )
    ]
    assert counts == [3_926_192, 3_955_984]
    assert counts[1] / counts[0] == pytest.approx(1.0, abs=0.03)


def test_the_tiny_baseline_differs_from_tiny_in_source_and_text_alone():
    ours, rival = t2i_preset("tiny"), t2i_preset("tiny-cross-attention")
    assert rival.fit == ours.fit
    assert rival.data == ours.data
    same = ("image_size", "language", "codec", "sample")
    assert all(getattr(rival.model, name) == getattr(ours.model, name) for name in same)
    assert {name: getattr(rival.model.loss, name) for name in ("null_rate", "times", "sigma_min")} == {
        name: getattr(ours.model.loss, name) for name in ("null_rate", "times", "sigma_min")
    }
    own = on_meta(lambda: TextVE(ours.model.text_ve).body)
    reader = on_meta(lambda: Reader(rival.model.reader))
    for name in ("neighbours", "self_blocks"):  # its layers over the words are the text encoder's
        shapes = [[tuple(p.shape) for p in getattr(it, name).parameters()] for it in (own, reader)]
        assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", CROSS_ATTENTION_PRESETS)
def test_every_size_of_the_baseline_is_the_paper_recipe_from_noise(name):
    rival, paper = t2i_preset(name), t2i_preset("paper-256")
    assert rival.model.backbone == CROSS_ATTENTION_PRESETS[name]
    assert rival.fit == replace(paper.fit, steps=300_000)
    assert (rival.model.language, rival.model.codec) == (paper.model.language, paper.model.codec)
    assert (rival.model.text_ve, rival.model.image_tower, rival.model.loss.encoder) == (None, None, "none")
    assert (rival.model.loss.null_rate, rival.model.loss.times) == (0.1, "uniform")


def test_the_baseline_of_table_1_has_1_04_billion_parameters_and_no_others():
    config = t2i_preset("cross-attention-1.04b").model
    count = count_parameters(on_meta(lambda: build_backbone(config)))
    published = (
        1_043_563_530  # counted in the public code, whose indicator is two scalars; it has no null text
    )
    assert count == published + INDICATOR_AS_VECTORS + 768
    assert set(_text_side(config) | encoder_parts(config)) == set()


@pytest.mark.parametrize("size", ["155m", "305m", "505m", "951m"])
def test_every_size_of_crossflow_is_the_paper_recipe(size):
    rung, paper = t2i_preset(f"crossflow-{size}"), t2i_preset("paper-256")
    assert rung.model == replace(paper.model, backbone=dimr_preset(f"dimr-{size}"))
    assert rung.fit == replace(paper.fit, steps=300_000)


# ------------------------------------------------------------------------------------------------- language models


WIDTHS = {"clip": (768, 77), "t5": (4096, 77), "llama": (4096, 77), "minilm": (384, 64)}


@pytest.mark.parametrize("language", WIDTHS)
def test_the_70m_ablation_reads_each_language_model_at_its_width(language):
    recipe = t2i_preset("ablation-70m" if language == "clip" else f"ablation-70m-{language}")
    model, (width, tokens) = recipe.model, WIDTHS[language]
    assert (model.language.name, model.language.width, model.language.max_tokens) == (language, width, tokens)
    assert model.backbone == dimr_preset("dimr-70m")
    features = torch.empty(2, tokens, width, device="meta")
    posterior = on_meta(lambda: TextVE(model.text_ve))(
        features, torch.ones(2, tokens, dtype=bool, device="meta")
    )
    assert posterior.mean.shape == (2, 4, 32, 32)


def test_between_language_models_only_what_reads_the_tokens_differs():
    base = t2i_preset("ablation-70m").model
    assert base == replace(t2i_preset("paper-256").model, backbone=dimr_preset("dimr-70m"))
    for language in set(WIDTHS) - {"clip"}:
        other = t2i_preset(f"ablation-70m-{language}").model
        assert replace(other, language=base.language, text_ve=base.text_ve) == base
        reads = {"token_width": base.text_ve.token_width, "max_tokens": base.text_ve.max_tokens}
        assert replace(other.text_ve, **reads) == base.text_ve


def test_minilm_is_at_hand_and_has_the_width_that_its_preset_says():
    found = language_model("minilm", max_tokens=64)
    assert (found.width, found.max_tokens) == WIDTHS["minilm"]


@pytest.mark.parametrize("encoder", ["image-text", "text-text", "reconstruction", "none"])
@pytest.mark.parametrize("variation", ["learned", "noise", "none"])
def test_the_rows_of_tables_3a_and_3b_are_two_keys_of_the_ablation(encoder, variation):
    keys = {"loss.encoder": encoder, "text_ve.variation": variation, "text_ve.sigma": 1.0}
    config = overridden(t2i_preset("ablation-70m"), keys).model
    parts = on_meta(lambda: encoder_parts(config))
    expected = {
        "image-text": {"image_tower", "log_scale"},
        "text-text": {"text_tower", "log_scale"},
        "reconstruction": {"text_decoder"},
        "none": set(),
    }
    assert set(parts) == expected[encoder]
    assert config.needs_images == (encoder == "image-text")
