import json
from dataclasses import FrozenInstanceError, replace

import pytest
from cf_transformer.dit_config import DiTConfig
from cf_transformer.presets import DIT_PRESETS, dit_preset

VALID = {"channels": 3, "size": (8, 6), "d_model": 24, "n_blocks": 2, "n_heads": 3}


@pytest.mark.parametrize("name", DIT_PRESETS)
def test_a_config_survives_json(name):
    config = replace(dit_preset(name), mlp_ratio=1.5, recompute="blocks")
    assert DiTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_config_is_frozen():
    with pytest.raises(FrozenInstanceError):
        DiTConfig(**VALID).channels = 5


def test_the_grid_is_the_size_in_patches():
    assert DiTConfig(**{**VALID, "size": (9, 6), "patch": 3}).grid == (3, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 0}, "channels must be a whole number >= 1, got 0"),
        ({"n_blocks": -1}, "n_blocks must be a whole number >= 1, got -1"),
        ({"size": (8, 7)}, "width 7 is not divisible by patch 2; pad it or change the patch"),
        ({"size": (0, 8)}, "height must be a whole number >= 1, got 0"),
        ({"n_heads": 5}, "n_heads must divide d_model=24, got 5"),
        (
            {"d_model": 26, "n_heads": 2},
            "multiple of 4, sine and cosine of x and of y, got 26; the next is 28",
        ),
        ({"mlp_ratio": 1.3}, "mlp_ratio . d_model must be a positive whole number, got 1.3"),
        ({"mlp_ratio": -1.0}, "mlp_ratio . d_model must be a positive whole number, got -1.0"),
        ({"time_scale": 0.0}, "time_scale must be positive, got 0.0; 1000 suits"),
        ({"attention": "flash"}, "unknown attention 'flash'; known: sdpa, matmul"),
        ({"recompute": "all"}, "unknown recompute 'all'; known: nothing, "),
        ({"size": (8,)}, "size must be .height, width., got .8,."),
    ],
)
def test_a_wrong_field_is_named_with_its_remedy(change, message):
    DiTConfig(**VALID)
    with pytest.raises(ValueError, match=message):
        DiTConfig(**{**VALID, **change})


def test_an_unknown_key_lists_the_known_ones_and_a_missing_one_is_named():
    with pytest.raises(ValueError, match="unknown DiTConfig key 'depth'; known: channels, size, d_model"):
        DiTConfig.from_dict({**VALID, "depth": 3})
    with pytest.raises(ValueError, match="DiTConfig lacks 'n_heads'"):
        DiTConfig.from_dict({key: value for key, value in VALID.items() if key != "n_heads"})
