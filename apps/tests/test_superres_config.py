"""What a super-resolution run is made of: it goes to JSON and back, and what does not fit is refused."""

import json

import pytest
import torch
from cf_apps.engine.commands.recipe import named, overridden
from cf_apps.engine.errors import ConfigError
from cf_apps.superres.config import SuperResConfig
from cf_apps.superres.methods import METHODS
from cf_apps.superres.model import build
from cf_apps.superres.presets import PRESETS
from cf_transformer import DiMR
from cf_transformer.count import count_parameters

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_goes_to_json_and_back(name):
    config = named(PRESETS, name).model
    assert SuperResConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("name", "small", "large"), [("tiny", 8, 32), ("tiny-64", 16, 64), ("small", 32, 128), ("paper", 64, 256)]
)
def test_every_preset_enlarges_four_times_and_has_no_indicator_to_train(name, small, large):
    config = named(PRESETS, name).model
    assert (config.image_size, config.factor, config.image_size // config.factor) == (large, 4, small)
    assert config.loss.null_rate == 0
    assert config.sample.scale == 1
    assert config.method == "crossflow"


def test_the_papers_preset_is_its_recipe():
    recipe = named(PRESETS, "paper")
    with torch.device("meta"):
        backbone = DiMR(recipe.model.backbone)
    assert abs(count_parameters(backbone) / 1e6 - 505) < 1.5
    fit = recipe.fit
    assert (fit.batch_size, fit.steps, fit.lr, fit.warmup_steps) == (512, 1_000_000, 1e-4, 5_000)
    assert recipe.model.source_noise == 0
    assert recipe.model.latent == (4, 32, 32)


@pytest.mark.parametrize("name", ["tiny", "tiny-64"])
@pytest.mark.parametrize("method", METHODS)
def test_the_small_presets_build_with_every_method_by_one_key(name, method):
    config = overridden(named(PRESETS, name), {"method": method}).model
    model = build(config, CPU)
    assert model.backbone.config.channels == 48 * (2 if method == "concat" else 1)
    assert model.codec.latent_shape(config.image_size, config.image_size) == config.latent


def test_building_is_repeatable_and_leaves_the_callers_dice_alone():
    config = named(PRESETS, "tiny").model
    before = torch.get_rng_state()
    one, two, other = (build(config, CPU, seed).modules.state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "magic"}, "unknown method 'magic'; known: crossflow, concat, regression"),
        ({"factor": 5}, "image_size 32 is no multiple of factor 5"),
        ({"factor": 1}, "factor must be a whole number, 2 or more"),
        ({"image_size": 8}, "image_size must be a whole number, 16 or more"),
        ({"source_noise": -0.1}, "source_noise must be zero or more"),
        ({"source_noise": float("nan")}, "source_noise must be zero or more"),
        ({"loss.scale_weights": [1.0]}, "1 weights for 2 stages"),
        ({"loss.times": "late"}, "unknown times 'late'"),
        ({"sample.solver": "eular"}, "unknown solver 'eular'"),
        ({"sigma": 0.1}, "unknown key 'sigma'"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_with_its_value(changes, words):
    with pytest.raises(ConfigError) as raised:
        overridden(named(PRESETS, "tiny"), changes)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"codec.name": "pixels"},
            "codec pixels turns 32 px into (3, 32, 32), but the model flows (48, 8, 8)",
        ),
        ({"codec.patch": 5, "codec.keep": 48}, "image_size 32: PatchDCTCodec(patch=5) needs height"),
        ({"codec.name": "sd-vae"}, "no path to the weights"),
        ({"codec.name": "jpeg"}, "unknown image codec 'jpeg'"),
        ({"image_size": 64}, "into (48, 16, 16), but the model flows (48, 8, 8); set backbone.channels"),
    ],
)
def test_parts_that_do_not_fit_are_refused_before_training(changes, words):
    config = overridden(named(PRESETS, "tiny"), changes).model
    with pytest.raises(ConfigError) as raised:
        build(config, CPU)
    assert words in str(raised.value)
