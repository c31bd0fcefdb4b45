"""Presets are complete, and as large as the papers say."""

import pytest
import torch
from cf_apps.engine.errors import ConfigError
from cf_apps.t2i.model import SAMPLING_PARTS, build
from cf_apps.t2i.presets import PRESETS, t2i_preset
from cf_encoders import ImageTower, TextVE, Vocabulary
from cf_transformer import DiMR, count_parameters

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
    assert tuple(model.text_ve.latent) == model.latent
    assert model.text_ve.token_width == model.language.width
    assert model.text_ve.max_tokens >= model.language.max_tokens
    assert preset.fit.steps is not None
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
    parts = [tiny.modules[name] for name in SAMPLING_PARTS]
    assert 2 * sum(count_parameters(part) for part in parts) <= 8e6
    assert set(tiny.modules) - set(SAMPLING_PARTS) == {"image_tower", "log_scale"}
