"""Settings are checked when they are made; progress and learning rate follow their formulas."""

import dataclasses
import math

import pytest
from cf_apps.engine import ConfigError, FitConfig, UserError


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": None}, "steps or max_seconds"),
        ({"max_seconds": 5.0}, "steps or max_seconds"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 10, "accumulate": 4}, "divisor of batch_size=10, got 4"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"lr": math.nan}, "lr must be positive"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"schedule": "linaer"}, "one of constant, cosine, got 'linaer'"),
        ({"final_lr_fraction": 1.5}, "final_lr_fraction"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"ema_ramp": 0.5}, "ema_ramp"),
        ({"precision": "fp16"}, "one of auto, fp32, bf16, got 'fp16'"),
        ({"save_every": 0}, "save_every"),
        ({"save_every_seconds": -1.0}, "save_every_seconds"),
        ({"keep_last": 0}, "keep_last"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, r"less than 2\^63, got 9223372036854775808"),
    ],
)
def test_a_setting_that_cannot_work_is_named_with_its_value(changes, words):
    with pytest.raises(ConfigError, match=words) as error:
        FitConfig(**({"steps": 100} | changes))
    assert isinstance(error.value, UserError | ValueError)
    assert "\n" not in str(error.value)


def test_a_config_cannot_be_changed_afterwards():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FitConfig(steps=3).lr = 1.0  # type: ignore[misc]


def test_progress_is_the_share_of_steps_or_of_seconds():
    assert FitConfig(steps=8).progress(2, elapsed=1e9) == 0.25
    assert FitConfig(max_seconds=300.0).progress(10**9, elapsed=75.0) == 0.25
    assert FitConfig(max_seconds=300.0).progress(0, elapsed=301.0) == 1.0


def test_the_warm_up_grows_linearly_and_ends_at_lr():
    config = FitConfig(steps=100, lr=2.0, warmup_steps=4)
    assert [config.learning_rate(step, 0.0) for step in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]


def test_without_warm_up_the_first_step_has_the_full_rate():
    assert FitConfig(steps=100, lr=2.0).learning_rate(0, 0.0) == 2.0


def test_the_cosine_goes_from_one_through_the_middle_to_its_end():
    config = FitConfig(steps=100, lr=1.0, schedule="cosine", final_lr_fraction=0.2)
    assert [config.learning_rate(50, p) for p in (0.0, 1 / 3, 0.5, 1.0)] == pytest.approx(
        [1.0, 0.8, 0.6, 0.2]
    )
