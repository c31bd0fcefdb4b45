"""AdamW against its formula; who is decayed; the clipping of gradients."""

import sys
from pathlib import Path

import pytest
import torch
from cf_apps.engine import FitConfig
from cf_apps.engine.optim import adamw, clip_gradients, decays, set_learning_rate, trained_parameters
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from engine_toy import Toy


def test_matrices_decay_and_norms_biases_embeddings_and_named_ones_do_not():
    task = Toy()
    assert decays(task.modules, task.no_decay) == {
        "net.0.weight": True,
        "net.0.bias": False,
        "net.1.weight": False,
        "net.1.bias": False,
        "net.4.weight": True,
        "net.4.bias": False,
        "table.weight": False,
        "position.weight": False,
    }
    assert decays(task.modules)["position.weight"]


def test_a_name_that_spares_nothing_is_an_error():
    with pytest.raises(ValueError, match=r"positoin.*known: .*position"):
        decays(Toy().modules, ["positoin"])


def test_frozen_parameters_are_not_trained_and_tied_ones_once():
    names = list(trained_parameters(Toy().modules))
    assert "frozen.weight" not in names
    assert "same.weight" not in names


def test_three_steps_equal_the_formula_of_adamw():
    torch.manual_seed(0)
    layer = nn.Linear(3, 2).double()
    config = FitConfig(steps=3, lr=0.1, betas=(0.8, 0.95), weight_decay=0.3)
    optimizer = adamw(nn.ModuleDict({"layer": layer}), config)
    expected = {}
    gradients = torch.randn(3, 2, 3, dtype=torch.float64)
    for name, parameter, decay in (("weight", layer.weight, 0.3), ("bias", layer.bias, 0.0)):
        w = parameter.detach().clone()
        m, v = torch.zeros_like(w), torch.zeros_like(w)
        for k, lr in enumerate((0.1, 0.2, 0.05), start=1):
            g = gradients[k - 1] if name == "weight" else gradients[k - 1, :, 0]
            m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
            w = w - lr * decay * w - lr * (m / (1 - 0.8**k)) / ((v / (1 - 0.95**k)).sqrt() + 1e-8)
        expected[name] = w
    for k, lr in enumerate((0.1, 0.2, 0.05)):
        set_learning_rate(optimizer, lr)
        layer.weight.grad, layer.bias.grad = gradients[k].clone(), gradients[k, :, 0].clone()
        optimizer.step()
    for name, value in expected.items():
        torch.testing.assert_close(getattr(layer, name).detach(), value, rtol=1e-12, atol=1e-12)


def some_parameters():
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(3))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor(-4.0)
    return parameters  # the third took no part in the loss


def test_clipping_scales_the_global_norm_and_returns_what_it_was():
    parameters = some_parameters()
    assert clip_gradients(parameters, 1.0).item() == 5.0
    torch.testing.assert_close(parameters[0].grad, torch.tensor([0.6, 0.0]))
    torch.testing.assert_close(parameters[1].grad, torch.tensor(-0.8))


@pytest.mark.parametrize("max_norm", [None, 6.0])
def test_a_small_gradient_or_no_limit_leaves_it_alone(max_norm):
    parameters = some_parameters()
    assert clip_gradients(parameters, max_norm).item() == 5.0
    assert parameters[1].grad == torch.tensor(-4.0)
