import pytest
import torch
from cf_transformer import DiMR, DiMRConfig, StageConfig


@pytest.mark.compile
def test_the_compiled_model_is_one_graph_and_equals_eager(shaken, generator):
    stages = (StageConfig("transformer", 8, 3, patch=2, n_heads=2), StageConfig("convnext", 4, 1, patch=1))
    model = shaken(DiMR(DiMRConfig(3, (4, 6), stages, kernel_size=3), generator))
    args = (torch.randn(2, 3, 4, 6), torch.rand(2), torch.tensor([True, False]))
    compiled = torch.compile(model, fullgraph=True)
    torch.testing.assert_close(compiled(*args), model(*args), rtol=1e-4, atol=1e-5)
    parameters = [p for name, p in model.named_parameters() if not name.startswith("heads.0.")]
    ours = torch.autograd.grad(compiled(*args).square().sum(), parameters)
    eager = torch.autograd.grad(model(*args).square().sum(), parameters)
    for a, b in zip(ours, eager, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.compile
def test_the_scales_are_one_graph_too(shaken, generator):
    stages = (StageConfig("transformer", 8, 1, patch=2, n_heads=2), StageConfig("convnext", 4, 1, patch=1))
    model = shaken(DiMR(DiMRConfig(3, (4, 6), stages, kernel_size=3), generator))
    args = (torch.randn(2, 3, 4, 6), torch.rand(2))
    captured = torch.compile(model.scales, fullgraph=True, backend="aot_eager")  # no code generation: quick
    for a, b in zip(captured(*args), model.scales(*args), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
