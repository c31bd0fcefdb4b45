"""Faults within a step become one line that says what to do."""

import os
import signal

import pytest
import torch
from cf_apps.engine import FitConfig, RunError
from cf_apps.engine.faults import explained_memory, stop_request

CONFIG = FitConfig(steps=1, batch_size=64, accumulate=2)
CPU_MESSAGE = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(CPU_MESSAGE), MemoryError()]
)
def test_out_of_memory_names_the_batch_size_and_the_remedy(error):
    with (
        pytest.raises(RunError, match=r"at 32 samples a pass .*batch_size=64.*try accumulate=4"),
        explained_memory(CONFIG),
    ):
        raise error


def test_a_real_request_for_too_much_memory_is_recognised():
    with pytest.raises(RunError, match="out of memory"), explained_memory(CONFIG):
        torch.empty(2**60)


def test_other_errors_pass_unchanged():
    with pytest.raises(RuntimeError, match="shapes differ"), explained_memory(CONFIG):
        raise RuntimeError("shapes differ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_once_and_afterwards_does_what_it_did(number):
    before = signal.getsignal(number)
    with stop_request() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_stops_at_once():
    with stop_request():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
