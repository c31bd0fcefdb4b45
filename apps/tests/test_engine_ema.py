"""The average against its formula; swapping it in leaves no trace."""

import pytest
import torch
from cf_apps.engine import Ema
from torch import nn


def walked(decay, ramp, values):
    """The average after the weight has taken these values, the first before any update."""
    modules = nn.ModuleDict({"a": nn.Linear(1, 1, bias=False).double()})
    weight = modules["a"].weight
    with torch.no_grad():
        weight.fill_(values[0])
        ema = Ema(modules, decay, ramp)
        for value in values[1:]:
            weight.fill_(value)
            ema.update()
    return ema, modules


def test_without_ramp_it_is_the_geometric_mean_of_the_past():
    ema, _ = walked(0.9, 1.0, [5.0, 1.0, -2.0, 4.0])
    expected = 0.9**3 * 5 + 0.1 * (0.9**2 * 1 + 0.9 * -2 + 4)
    assert ema.state()["a.weight"].item() == pytest.approx(expected, rel=1e-14)


def test_with_the_ramp_the_decay_grows_up_to_its_limit():
    average, values = 5.0, [5.0, 1.0, -2.0, 4.0, 0.5]
    for value, decay in zip(
        values[1:], (1 / 10, 2 / 11, 0.2, 0.2), strict=True
    ):  # 3 / 12 and 4 / 13 exceed 0.2
        average = decay * average + (1 - decay) * value
    ema, _ = walked(0.2, 10.0, values)
    assert ema.state()["a.weight"].item() == pytest.approx(average, rel=1e-14)


def test_swapped_in_shows_the_average_and_gives_the_weights_back_even_after_an_error():
    ema, modules = walked(0.5, 1.0, [1.0, 1 / 3])

    def look_and_fail():
        with ema.swapped_in():
            assert modules["a"].weight.item() == pytest.approx(2 / 3)
            raise KeyError

    with pytest.raises(KeyError):
        look_and_fail()
    assert modules["a"].weight.item() == 1 / 3
    assert ema.state()["a.weight"].item() == pytest.approx(2 / 3)


def test_an_average_in_the_host_s_memory_is_the_same_average():
    torch.manual_seed(0)
    layer = nn.ModuleDict({"layer": nn.Linear(3, 2)})
    here, there = Ema(layer, 0.9), Ema(layer, 0.9, device="cpu")
    for _ in range(3):
        with torch.no_grad():
            layer["layer"].weight.add_(1.0)
        here.update()
        there.update()
    for name, average in here.state().items():
        assert torch.equal(average, there.state()[name])
        assert average is not there.state()[name]
