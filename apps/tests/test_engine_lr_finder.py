"""The learning-rate finder: the rates it says it takes, the suggestion by the formula, and a task left as it was."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from cf_apps.engine import ConfigError, FitConfig, Losses, RunError, fit, read_log
from cf_apps.engine.commands.app import App, Ready
from cf_apps.engine.commands.find_lr import find_lr_command
from cf_apps.engine.commands.recipe import Recipe
from cf_apps.engine.lr_finder import Sweep, draw_sweep, find_lr
from cf_apps.engine.records import Record
from cf_apps.engine.saving.state import named_tensors
from PIL import Image
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from engine_toy import Toy, config


class Weight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([4.0, -1.0, 2.0], dtype=torch.float64))


class Slope:
    """loss = w_1 + w_2 + w_3: the gradient is 1 everywhere and always, so Adam's step is the learning rate itself."""

    no_decay = ()

    def __init__(self) -> None:
        self.modules = nn.ModuleDict({"slope": Weight()})

    def describe(self):
        return {}

    def batch(self, first, size):
        return range(first, first + size)

    def losses(self, batch, generator, progress):
        return Losses({"sum": (1.0, self.modules["slope"].w.sum())})


class Scripted(Slope):
    """The loss of step k is the k-th number of a script, whatever the weights are."""

    def __init__(self, *script: float) -> None:
        super().__init__()
        self.script = script

    def losses(self, batch, generator, progress):
        value = self.script[min(batch[0] // 4, len(self.script) - 1)]
        return Losses({"script": (1.0, value + 0.0 * self.modules["slope"].w.sum())})


def settings(**changes) -> FitConfig:
    return FitConfig(**({"steps": 10**6, "batch_size": 4, "clip_norm": None, "weight_decay": 0.0} | changes))


def smooth_by_hand(values) -> list[float]:
    """Means of the past, weighted 0.8^age."""
    weights = [0.8 ** np.arange(n)[::-1] for n in range(1, len(values) + 1)]
    return [float((w * values[: len(w)]).sum() / w.sum()) for w in weights]


def test_each_step_is_made_at_its_rate():
    sweep = find_lr(Slope(), settings(), lowest=1e-3, highest=1e-1, steps=11)
    rates = [10 ** (-3 + 2 * k / 10) for k in range(11)]
    assert sweep.rates.tolist() == pytest.approx(rates, rel=1e-12)
    expected = [5.0 - 3 * sum(rates[:k]) for k in range(11)]
    assert sweep.losses.tolist() == pytest.approx(expected, rel=1e-7)  # Adam's eps is 1e-8 of the gradient
    assert sweep.suggestion == pytest.approx(1e-2)  # a tenth of the last: the loss fell to the end


def test_the_suggestion_is_a_tenth_of_the_rate_of_the_least_smoothed_loss_and_the_sweep_ends_when_it_breaks():
    script = [5.0, 5.1, 4.9, 4.0, 3.0, 1.0, 0.8, 0.7, 0.9, 2.0, 4.0, 9.0, 30.0, 90.0, 300.0, 999.0]
    sweep = find_lr(Scripted(*script), settings(), lowest=1e-6, highest=1.0, steps=31)
    smooth = smooth_by_hand(np.array(script))
    ends = next(k for k in range(1, 16) if smooth[k] > 4 * min(smooth[: k + 1]) and smooth[k] > smooth[0])
    assert sweep.losses.tolist() == script[: ends + 1]
    assert sweep.smooth.tolist() == pytest.approx(smooth[: ends + 1])
    least = min(range(ends + 1), key=smooth.__getitem__)
    assert sweep.suggestion == pytest.approx(10 ** (-6 + 6 * least / 30) / 10)


def test_a_loss_that_is_not_finite_ends_the_sweep():
    sweep = find_lr(Scripted(3.0, 2.0, 1.0, float("inf"), 0.1), settings(), steps=20)
    assert sweep.losses.tolist() == [3.0, 2.0, 1.0]
    with pytest.raises(RunError, match="not finite before the first step"):
        find_lr(Scripted(float("nan")), settings(), steps=20)


def test_a_loss_that_never_falls_suggests_nothing():
    with pytest.raises(RunError, match=r"never fell .* from 1.0e-07 to .*sweep lower rates"):
        find_lr(Scripted(*range(1, 40)), settings(), steps=20)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lowest": 0.0}, "0 < lowest < highest, got 0.0 and 1.0"),
        ({"lowest": 2.0}, "got 2.0"),
        ({"highest": float("inf")}, "got 1e-07 and inf"),
        ({"steps": 3}, "steps must be a whole number, 10 or more, got 3"),
    ],
)
def test_what_makes_no_sweep_is_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        find_lr(Slope(), settings(), **changes)


def test_the_task_is_left_as_it_was_bit_for_bit():
    task = Toy()
    task.modules["net"].eval()
    before = {name: tensor.clone() for name, tensor in named_tensors(task.modules).items()}
    modes = [module.training for module in task.modules.modules()]
    dice = torch.random.get_rng_state()
    sweep = find_lr(task, config(1), steps=12)
    assert len(set(sweep.losses.tolist())) > 6  # it did train
    after = named_tensors(task.modules)
    assert [name for name, tensor in before.items() if not torch.equal(tensor, after[name])] == []
    assert [module.training for module in task.modules.modules()] == modes
    assert all(parameter.grad is None for parameter in task.modules.parameters())
    assert torch.equal(torch.random.get_rng_state(), dice)


@pytest.mark.parametrize("changes", [{}, {"accumulate": 2, "precision": "bf16", "seed": 5}])
def test_the_first_step_is_the_one_that_training_makes(tmp_path, changes):
    training = config(1, **changes)
    sweep = find_lr(Toy(), training, steps=10)
    fit(Toy(), training, tmp_path / "run")
    assert sweep.losses[0] == pytest.approx(read_log(tmp_path / "run")[0]["losses"]["total"], rel=1e-6)


@dataclass(frozen=True)
class NoModel(Record):
    width: int = 7


def test_the_command_prints_the_sweep_draws_it_and_suggests_a_rate(tmp_path, capsys):
    app = App(
        name="toy",
        data="nothing",
        presets={"tiny": lambda: Recipe("", NoModel(), config(5, lr=0.25), "none")},
        prepare=lambda model, setting: Ready(Toy(model.width)),
        parts=(),
        open=lambda run, device: None,
        score=lambda sampler, scoring: {},
        show=lambda sampler, scoring: {},
    )
    find_lr_command(app)(out=tmp_path / "new" / "lr.png", steps=15, set=["width=5"], device="cpu").run()
    said = capsys.readouterr().out
    assert "1.00e-07" in said
    assert "suggestion: lr" in said
    assert "the preset has 2.5e-01" in said
    assert Image.open(tmp_path / "new" / "lr.png").width > 100


def test_a_plot_that_cannot_be_written_names_the_way_out(tmp_path):
    (tmp_path / "file").write_text("")
    sweep = find_lr(Slope(), settings(), steps=10)
    with pytest.raises(RunError, match=r"cannot write .*choose another --out"):
        draw_sweep(sweep, tmp_path / "file" / "lr.png")


def test_a_plot_shows_the_fall_and_not_the_losses_after_it():
    rates = np.geomspace(1e-6, 1e-1, 6)
    sweep = Sweep(rates, losses := np.array([6.0, 6.2, 5.7, 5.4, 20.0, 640.0]), losses)
    low, high = sweep.shown
    assert low < 5.4 < 6.2 < high < 20.0
    assert (6.2 - 5.4) / (high - low) == pytest.approx(0.5)  # half of its height
