"""A whole DiMR with every kernel on is the DiMR with every kernel off, forward and backward."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from cf_transformer import DiMR, DiMRConfig, StageConfig
from cf_transformer.kernels import explain, using
from torch.utils._python_dispatch import TorchDispatchMode

pytestmark = pytest.mark.interpreter

CONFIG = DiMRConfig(
    channels=2,
    size=(4, 6),
    stages=(StageConfig("transformer", 16, 3, patch=2, n_heads=2), StageConfig("convnext", 12, 3, patch=1)),
    kernel_size=3,
)
VARIANTS = {
    "paper": CONFIG,
    "rope": replace(CONFIG, query_key="norm+rope"),
    "cheap": replace(CONFIG, recompute="cheap"),
    "blocks": replace(CONFIG, recompute="blocks"),
}


def made(config: DiMRConfig) -> tuple[DiMR, tuple[torch.Tensor, ...]]:
    generator = torch.Generator(torch.get_default_device()).manual_seed(0)
    model = DiMR(config, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    x_t, t = torch.randn(2, 2, 4, 6, generator=generator), torch.rand(2, generator=generator)
    return model.double(), (x_t.double(), t.double(), torch.tensor([True, False]))


@pytest.mark.parametrize("name", VARIANTS)
def test_kernels_on_is_kernels_off(name):
    model, inputs = made(VARIANTS[name])
    results = {}
    for mode in ("torch", "triton"):
        with using(mode):
            scales = model.scales(*inputs)
            loss = sum(v.square().mean() for v in scales)
            gradients = torch.autograd.grad(loss, list(model.parameters()))
        results[mode] = [*scales, *gradients]
    ran = {choice.op for choice in explain() if choice.backend == "triton"}
    own = {"qk_norm_rope"} if name == "rope" else set()
    assert {"add_td_norm", "time_lerps", "geglu", "attention"} | own <= ran
    for ours, plain in zip(results["triton"], results["torch"], strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-11)


class Calls(TorchDispatchMode):
    """Counts the ops that are really run."""

    def __init__(self) -> None:
        super().__init__()
        self.of = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.of[func.name()] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("name", "again"), [("cheap", 0), ("blocks", 3)])
def test_cheap_does_not_run_attention_twice(name, again):
    model, inputs = made(VARIANTS[name])
    with using("triton"):
        loss = model(*inputs).square().mean()
        with Calls() as calls:
            loss.backward()
    assert calls.of["cf_transformer::attention_forward"] == again
    assert calls.of["cf_transformer::attention_backward"] == 3
