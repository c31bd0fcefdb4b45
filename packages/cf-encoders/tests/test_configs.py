import json

import pytest
from cf_encoders import ImageTowerConfig, TextVEConfig, text_ve_preset

CONFIGS = [
    text_ve_preset("tiny"),
    text_ve_preset("released-512-t5"),
    ImageTowerConfig((3, 32, 24), (4, 8, 6)),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_a_config_survives_json(config):
    assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_an_unknown_key_is_named_and_the_known_ones_listed(config):
    with pytest.raises(ValueError, match=r"widht.*known: .*latent"):
        type(config).from_dict({**config.to_dict(), "widht": 3})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "compakt"}, "compakt.*known: compact, paper, released"),
        ({"width": 100, "heads": 3}, "100 must be a multiple of heads 3"),
        ({"depth": 0}, "depth must be a positive integer, got 0"),
        ({"latent": (3, 32, 30)}, "patch 8 must divide.*32.*30"),
        ({"latent": (3, 32, 0)}, "latent must be"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"sigma": 0.0}, "sigma and mean_std must be > 0"),
        ({"conv_depth": -1}, "conv_depth must be 0 or more and conv_kernel odd, got -1 and 5"),
        ({"conv_kernel": 4}, "conv_depth must be 0 or more and conv_kernel odd, got 0 and 4"),
    ],
)
def test_a_wrong_text_encoder_config_says_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        TextVEConfig.from_dict({**text_ve_preset("tiny").to_dict(), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": (3, 32, 30)}, "divisible by 8, got 32 x 30"),
        ({"stages": (12,)}, "multiples of 8"),
        ({"hidden": -1}, "hidden must be a positive integer, got -1"),
    ],
)
def test_a_wrong_image_tower_config_says_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        ImageTowerConfig.from_dict({**ImageTowerConfig((3, 32, 32), (4, 8, 8)).to_dict(), **change})
