"""A config survives JSON, and parts that do not fit together are refused by name."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cf_apps.engine.codecs import CodecConfig
from cf_apps.engine.commands.recipe import overridden, parse_overrides
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import TIMES, SampleConfig
from cf_apps.t2i.config import LanguageConfig, LossConfig, T2IConfig
from cf_apps.t2i.drawing.options import shipped_run
from cf_apps.t2i.presets import PRESETS, t2i_preset
from cf_encoders import TextTowerConfig
from cf_encoders.captions import FeatureDecoderConfig

sys.path.insert(0, str(Path(__file__).parent))
from t2i_tiny import recipe

# ------------------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_json(name):
    config = t2i_preset(name).model
    assert T2IConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_unknown_keys_are_named_with_the_known_ones():
    values = t2i_preset("tiny").model.to_dict()
    with pytest.raises(
        ConfigError, match=r"unknown T2IConfig keys \['colour'\]; known: image_size, language"
    ):
        T2IConfig.from_dict(values | {"colour": 3})
    with pytest.raises(ConfigError, match=r"unknown LossConfig keys \['kl'\]; known: null_rate, times"):
        T2IConfig.from_dict(values | {"loss": values["loss"] | {"kl": 1.0}})
    values = recipe().model.to_dict()  # tiny itself has no tower
    for part in ("text_ve", "backbone", "image_tower"):
        with pytest.raises(ValueError, match=r"unknown \w+ key.*'dept'.*; known: "):
            T2IConfig.from_dict(values | {part: values[part] | {"dept": 1}})


# ------------------------------------------------------------------------------------------------- parts


def test_text_encoder_and_tower_must_have_the_latent_of_the_backbone():
    config = recipe().model
    with pytest.raises(
        ConfigError, match=r"text_ve.latent is \(3, 8, 16\), but the backbone flows \(3, 16, 16\)"
    ):
        replace(config, text_ve=replace(config.text_ve, latent=(3, 8, 16)))
    with pytest.raises(ConfigError, match=r"image_tower.latent is \(1, 16, 16\)"):
        replace(config, image_tower=replace(config.image_tower, latent=(1, 16, 16)))


def test_without_a_tower_nothing_sees_the_image():
    assert replace(recipe().model, image_tower=None).image_tower is None
    with pytest.raises(
        ConfigError, match="tower_sees is 'image', but image_tower is null; set tower_sees=latent"
    ):
        replace(recipe().model, image_tower=None, tower_sees="image")


def test_the_text_encoder_must_read_all_tokens():
    config = recipe().model
    with pytest.raises(ConfigError, match="text_ve reads 12 tokens, the language model gives 13"):
        replace(config, language=replace(config.language, max_tokens=13))
    assert replace(config, language=replace(config.language, max_tokens=11)).language.max_tokens == 11


def test_what_trains_the_encoder_must_fit_it():
    config = recipe().model
    tower = TextTowerConfig(16, (3, 16, 16))
    decoder = FeatureDecoderConfig(latent=(3, 16, 16), max_tokens=12, token_width=16)
    fitting = replace(config, text_tower=tower, text_decoder=decoder)
    assert T2IConfig.from_dict(json.loads(json.dumps(fitting.to_dict()))) == fitting
    for change, words in (
        (
            {"text_tower": replace(tower, latent=(3, 8, 8))},
            r"text_tower.latent is \(3, 8, 8\), but the backbone",
        ),
        ({"text_decoder": replace(decoder, latent=(3, 8, 8))}, r"text_decoder.latent is \(3, 8, 8\)"),
        (
            {"text_tower": replace(tower, token_width=9)},
            "text_tower.token_width is 9, but text_ve.token_width 16",
        ),
        ({"text_decoder": replace(decoder, token_width=9)}, "text_decoder.token_width is 9"),
        (
            {"text_decoder": replace(decoder, max_tokens=9)},
            "writes 9 tokens, the language model gives 12; set text_decoder.max_tokens=12",
        ),
    ):
        with pytest.raises(ConfigError, match=words):
            replace(config, **change)


def test_a_config_from_before_these_keys_is_read_as_it_was_meant():
    """The file that ships with the package has no strategy, no reader, no kind of L_Enc."""
    old = json.loads((shipped_run() / "config.json").read_text())["task"]["config"]
    assert "strategy" not in old
    assert "encoder" not in old["loss"]
    config = T2IConfig.from_dict(old)
    assert (config.strategy, config.loss.encoder, config.init, config.reader) == (
        "joint",
        "image-text",
        None,
        None,
    )
    assert not config.from_noise


def test_there_is_a_weight_for_each_scale():
    config = recipe().model
    fitting = replace(config, loss=replace(config.loss, scale_weights=(0.1, 1.0)))
    assert T2IConfig.from_dict(json.loads(json.dumps(fitting.to_dict()))) == fitting
    with pytest.raises(ConfigError, match="3 weights for 2 stages"):
        replace(config, loss=replace(config.loss, scale_weights=(0.1, 0.2, 1.0)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LossConfig(times="erly"), f"unknown times 'erly'; known: {', '.join(TIMES)}"),
        (lambda: LossConfig(kl_form="sextic"), "unknown kl_form 'sextic'; known: paper, released"),
        (lambda: LossConfig(null_rate=1.0), r"null_rate must lie in \[0, 1\), got 1.0"),
        (
            lambda: LossConfig(encoder="clip"),
            "unknown loss.encoder 'clip'; known: image-text, text-text, reconstruction, none",
        ),
        (lambda: LossConfig(kl_weight=-1.0), "kl_weight must be zero or more, got -1.0"),
        (lambda: LossConfig(encoder_weight=-0.5), "encoder_weight must be zero or more, got -0.5"),
        (
            lambda: SampleConfig(solver="eular"),
            "unknown solver 'eular'; known: euler, midpoint, heun, rk4, bosh3, dopri5",
        ),
        (lambda: SampleConfig(steps=0), "steps must be a whole number, 1 or more, got 0"),
        (lambda: SampleConfig(scale=float("nan")), "scale must be a finite number, got nan"),
        (lambda: SampleConfig(temperature=-1.0), "temperature must be zero or more, got -1.0"),
        (lambda: LanguageConfig(max_tokens=1), "max_tokens must be a whole number, 2 or more, got 1"),
        (lambda: LanguageConfig(width=0), "width must be a whole number, 1 or more, got 0"),
        (
            lambda: replace(recipe().model, tower_sees="pixels"),
            "unknown tower_sees 'pixels'; known: latent, image",
        ),
        (
            lambda: replace(recipe().model, image_size=0),
            "image_size must be a whole number, 1 or more, got 0",
        ),
    ],
)
def test_a_value_that_cannot_work_is_named(make, words):
    try:
        with pytest.raises(ConfigError, match=words):
            make()
    except TypeError:  # the tests' own type checks may be faster where a name is a Literal
        assert "known" in words


# ------------------------------------------------------------------------------------------------- overrides


def test_an_override_changes_its_key_and_nothing_else():
    tiny = t2i_preset("tiny")
    changed = overridden(
        tiny, {"loss.kl_weight": 0.5, "backbone.activation": "gelu", "fit.lr": 0.25, "fit.betas": [0.5, 0.6]}
    )
    assert changed.model.loss == replace(tiny.model.loss, kl_weight=0.5)
    assert changed.model.backbone == replace(tiny.model.backbone, activation="gelu")
    assert changed.fit == replace(tiny.fit, lr=0.25, betas=(0.5, 0.6))
    assert changed.model.text_ve == tiny.model.text_ve
    assert changed.data == tiny.data


@pytest.mark.parametrize("name", PRESETS)
def test_no_overrides_leave_a_preset_as_it_is(name):
    assert overridden(t2i_preset(name), {}) == t2i_preset(name)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("loss.kl", "unknown key 'loss.kl' .*known: null_rate, times"),
        ("los.kl_weight", "unknown key 'los.kl_weight' .*'los'.*known: image_size, language"),
        ("fit.learning_rate", "unknown key.*known: steps, max_seconds, batch_size"),
        ("loss.kl_weight.more", "nothing below this"),
        ("backbone.stages.0", "nothing below this"),
    ],
)
def test_an_unknown_key_lists_the_known_ones(key, words):
    with pytest.raises(ConfigError, match=words):
        overridden(t2i_preset("tiny"), {key: 1})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("loss.kl_weight", "much"),
        ("fit.lr", "fast"),
        ("fit.betas", 3),
        ("text_ve.latent", 3),
        ("text_ve.patch", 7),
        ("backbone.stages", 2),
        ("image_size", "large"),
        ("sample.steps", "few"),
    ],
)
def test_a_value_of_the_wrong_kind_names_the_key_in_one_line(key, value):
    with pytest.raises(ConfigError, match=key.split(".")[-1]) as error:
        overridden(t2i_preset("tiny"), {key: value})
    assert len(str(error.value)) > 0


def test_pairs_are_json_where_they_can_be_and_words_where_not():
    pairs = ["a.b=1e-5", "c=true", "d=[1, 2]", "e=gelu", "f=", "g=x=y", "h=null"]
    assert parse_overrides(pairs) == {
        "a.b": 1e-5,
        "c": True,
        "d": [1, 2],
        "e": "gelu",
        "f": "",
        "g": "x=y",
        "h": None,
    }


@pytest.mark.parametrize("pair", ["loss.kl_weight", "=3", "a b=3", "a-b=3"])
def test_anything_but_key_value_is_refused(pair):
    with pytest.raises(ConfigError, match="--set takes KEY=VALUE"):
        parse_overrides([pair])


def test_latents_of_the_codec_must_be_those_of_the_model():
    from cf_apps.t2i.model import build
    from cf_encoders import Vocabulary
    from t2i_tiny import CPU

    config = recipe().model
    with pytest.raises(
        ConfigError, match=r"codec pixels turns 32 px into \(3, 32, 32\), but the model flows"
    ):
        build(replace(config, image_size=32), Vocabulary(["a"]), CPU)
    with pytest.raises(ConfigError, match=r"vocab gives tokens 16 wide, text_ve.token_width is 17"):
        build(replace(config, text_ve=replace(config.text_ve, token_width=17)), Vocabulary(["a"]), CPU)
    with pytest.raises(ConfigError, match="needs a vocabulary"):
        build(config, None, CPU)
    with pytest.raises(ConfigError, match="language model bert: unknown"):
        build(replace(config, language=replace(config.language, name="bert")), None, CPU)
    with pytest.raises(ConfigError, match="image codec jpeg: unknown"):
        build(replace(config, codec=CodecConfig("jpeg")), Vocabulary(["a"]), CPU)
