import json
from dataclasses import FrozenInstanceError, replace

import pytest
from cf_transformer import PRESETS, DiMRConfig, StageConfig, preset

TOKENS = StageConfig("transformer", 8, 3, patch=2, n_heads=2)


@pytest.mark.parametrize(("asked", "built"), [(1, 1), (2, 3), (20, 21), (21, 21), (33, 33)])
def test_the_number_of_blocks_becomes_odd(asked, built):
    assert StageConfig("convnext", 8, asked, patch=1).n_blocks == built


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_survives_json(name):
    config = replace(preset(name), activation="silu", mlp_ratio=1.5)
    assert DiMRConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_config_is_frozen(config):
    with pytest.raises(FrozenInstanceError):
        config.channels = 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indicator": "token"}, "unknown indicator 'token'; known: paper, released"),
        ({"activation": "relu"}, "unknown activation 'relu'; known: gelu, silu"),
        ({"attention": "flash"}, "unknown attention 'flash'; known: sdpa, matmul"),
        ({"channels": 0}, "channels must be a whole number >= 1, got 0"),
        ({"size": (8,)}, "size must be .height, width."),
        ({"size": (8, 0)}, "width must be a whole number >= 1, got 0"),
        ({"size": (8, 9)}, "size .8, 9. is not divisible by patch 2"),
        ({"kernel_size": 4}, "kernel_size must be odd"),
        ({"mlp_ratio": 1.3}, "mlp_ratio . d_model must be a positive whole number"),
        ({"mlp_ratio": -1.0}, "mlp_ratio . d_model must be a positive whole number"),
        ({"stages": ()}, "stages is empty"),
        ({"stages": (StageConfig("convnext", 8, 1, 2),)}, "first stage must be a transformer"),
        ({"stages": (TOKENS, StageConfig("convnext", 8, 1, 4))}, "patch 2 must be a multiple of the next"),
    ],
)
def test_a_wrong_field_is_named_with_its_remedy(change, message):
    valid = {"channels": 3, "size": (8, 8), "stages": (TOKENS,)}
    DiMRConfig(**valid)
    with pytest.raises(ValueError, match=message):
        DiMRConfig(**{**valid, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "unet"}, "unknown stage kind 'unet'; known: transformer, convnext"),
        ({"patch": 0}, "patch must be a whole number >= 1, got 0"),
        ({"n_blocks": -2}, "n_blocks must be a whole number >= 1, got -2"),
        ({"d_model": True}, "d_model must be a whole number >= 1, got True"),
        ({"n_heads": 3}, "n_heads that divides d_model=128, got 3; the paper takes d_model // 64 = 2"),
        ({"n_heads": None}, "n_heads that divides d_model=128, got None"),
        ({"kind": "convnext"}, "a convnext stage has no attention: leave n_heads out"),
    ],
)
def test_a_wrong_stage_is_named_with_its_remedy(change, message):
    valid = {"kind": "transformer", "d_model": 128, "n_blocks": 1, "patch": 2, "n_heads": 2}
    with pytest.raises((ValueError, TypeError), match=message):
        StageConfig(**{**valid, **change})


def test_an_unknown_key_lists_the_known_ones(config):
    with pytest.raises(ValueError, match="unknown DiMRConfig key 'chanels'; known: channels, size, stages"):
        DiMRConfig.from_dict({**config.to_dict(), "chanels": 3})
    with pytest.raises(ValueError, match="unknown StageConfig key 'depth'; known: kind, d_model, n_blocks"):
        StageConfig.from_dict({**TOKENS.to_dict(), "depth": 3})


def test_a_missing_key_is_named(config):
    values = config.to_dict()
    del values["size"]
    with pytest.raises(ValueError, match="DiMRConfig lacks 'size'"):
        DiMRConfig.from_dict(values)
