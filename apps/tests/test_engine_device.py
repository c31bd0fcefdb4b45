"""Devices and number formats by name."""

import pytest
import torch
from cf_apps.engine import ConfigError, choose_device, describe_device
from cf_apps.engine.precision import autocast


def test_auto_takes_the_gpu_where_there_is_one():
    assert choose_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_named(name):
    with pytest.raises(ConfigError, match=name):
        choose_device(name)


def test_the_description_says_what_ran():
    described = describe_device(torch.device("cpu"))
    assert described["device"] == "cpu"
    assert described["model"]
    assert described["threads"] == torch.get_num_threads()


def test_bf16_computes_in_bfloat16_and_fp32_in_float32():
    x = torch.randn(3, 3)
    with autocast(torch.device("cpu"), "bf16"):
        assert (x @ x).dtype == torch.bfloat16
    with autocast(torch.device("cpu"), "fp32"):
        assert (x @ x).dtype == torch.float32
    with pytest.raises(ConfigError, match="known: fp32, bf16"):
        autocast(torch.device("cpu"), "fp8")
