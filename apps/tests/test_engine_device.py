"""Devices and number formats by name."""

import pytest
import torch
from cf_apps.engine import ConfigError, choose_device, describe_device
from cf_apps.engine.precision import autocast, drawn_in, has_bf16, slow_precision


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
    with pytest.raises(ConfigError, match="known: auto, fp32, bf16"):
        autocast(torch.device("cpu"), "fp8")


@pytest.mark.parametrize(("there", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_bf16_where_the_processor_has_it(monkeypatch, there, dtype):
    monkeypatch.setattr("cf_apps.engine.precision.has_bf16", lambda device: there)
    x, cpu = torch.randn(3, 3), torch.device("cpu")
    with autocast(cpu, "auto"):
        assert (x @ x).dtype == dtype
    with autocast(
        cpu, drawn_in("bf16")
    ):  # a run from a machine that has it is drawn from on one that has not
        assert (x @ x).dtype == dtype
    assert len(slow_precision(cpu, "bf16")) == (not there)
    assert slow_precision(cpu, "auto") == slow_precision(cpu, "fp32") == []


def test_a_processor_without_the_instructions_has_no_bf16(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: False)
    assert not has_bf16(torch.device("cpu"))
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True)
    assert has_bf16(torch.device("cpu"))
    assert not has_bf16(torch.device("meta"))
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr(
        "torch.backends.mkldnn.is_available", lambda: False
    )  # such a build lacks the question, too
    monkeypatch.setattr("torch.ops.mkldnn", object())
    assert not has_bf16(torch.device("cpu"))
