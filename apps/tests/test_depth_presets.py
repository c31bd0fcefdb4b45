"""Depth presets are complete, and as large as the paper says."""

import pytest
import torch
from cf_apps.depth.presets import PRESETS
from cf_encoders import ImageVE
from cf_transformer import DiMR, count_parameters

PAPER = 527e6


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_says_what_it_is_and_has_parts_that_fit(name):
    recipe = PRESETS[name]()
    assert recipe.about
    assert "\n" not in recipe.about
    assert recipe.fit.steps is not None
    assert type(recipe.model).from_dict(recipe.model.to_dict()) == recipe.model


@pytest.mark.parametrize("name", ["paper-kitti", "paper-nyu", "paper-zero-shot"])
def test_the_paper_s_models_have_its_size(name):
    model = PRESETS[name]().model
    with torch.device("meta"):
        parts = [DiMR(model.backbone), ImageVE(model.image_ve)]
    assert abs(sum(count_parameters(part) for part in parts) / PAPER - 1) < 0.02


def test_the_paper_s_recipes_have_its_numbers():
    kitti, nyu, zero = (PRESETS[f"paper-{name}"]() for name in ("kitti", "nyu", "zero-shot"))
    for recipe, pictures in ((kitti, 23_488), (nyu, 24_231)):
        fit = recipe.fit
        assert fit.steps == int(50 * pictures / 64)
        assert (fit.batch_size, fit.schedule, fit.warmup_steps) == (64, "cosine", 0)
        assert fit.learning_rate(0, 0.0) == 1e-4
        assert abs(fit.learning_rate(fit.steps, 1.0) - 1e-8) < 1e-15
    assert (zero.fit.steps, zero.fit.batch_size, zero.fit.lr, zero.fit.warmup_steps) == (
        150_000,
        512,
        1e-4,
        5_000,
    )
    assert (kitti.model.size, nyu.model.size) == ((352, 1216), (480, 640))
    assert (kitti.model.scaling.far, nyu.model.scaling.far, zero.model.scaling.kind) == (80.0, 10.0, "affine")
