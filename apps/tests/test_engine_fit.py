"""The loop: it learns, repeats bit for bit, resumes exactly, stops politely and says what is wrong."""

import errno
import json
import math
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from cf_apps.engine import CheckpointError, FitConfig, Losses, RunError, fit, read_log
from cf_apps.engine.optim import decays
from cf_apps.engine.saving.checkpoint import checkpoints
from cf_apps.engine.saving.state import TrainState, named_tensors
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from engine_toy import Toy, config


def trained(run, steps, resume=False, **changes):
    task = Toy()
    result = fit(task, config(steps, **changes), run, resume=resume)
    return task, result


def tensors(task, result):
    return named_tensors(task.modules) | {f"ema.{k}": v for k, v in result.ema.state().items()}


def assert_same(left, right):
    assert left.keys() == right.keys()
    different = [name for name in left if not torch.equal(left[name], right[name])]
    assert not different


class Line:
    """y = w x + b on given points, in float64: no randomness, every step by hand below."""

    no_decay = ()

    def __init__(self):
        torch.manual_seed(0)
        self.modules = nn.ModuleDict({"line": nn.Linear(2, 1).double()})
        self.x = torch.randn(40, 2, dtype=torch.float64)
        self.y = self.x @ torch.tensor([[2.0], [-1.0]], dtype=torch.float64) + 0.5

    def describe(self):
        return {"name": "line"}

    def batch(self, first, size):
        return torch.arange(first, first + size) % 40

    def losses(self, batch, generator, progress):
        return Losses({"fit": (3.0, (self.modules["line"](self.x[batch]) - self.y[batch]).square().mean())})


def test_the_loop_equals_the_same_steps_by_hand(tmp_path):
    settings = FitConfig(
        steps=9, batch_size=6, lr=0.05, betas=(0.8, 0.9), weight_decay=0.2, warmup_steps=3, schedule="cosine",
        final_lr_fraction=0.1, clip_norm=2.0, ema_decay=0.7, ema_ramp=4.0,
    )  # fmt: skip
    task = Line()
    result = fit(task, settings, tmp_path / "run")

    peer = Line()
    line = peer.modules["line"]
    ema = [p.detach().clone() for p in line.parameters()]
    groups = [{"params": [line.weight], "weight_decay": 0.2}, {"params": [line.bias], "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, betas=(0.8, 0.9), foreach=False)
    for step in range(9):
        rate = 0.05 * min(1, (step + 1) / 3) * (0.1 + 0.9 * (1 + math.cos(math.pi * step / 9)) / 2)
        for group in adam.param_groups:
            group["lr"] = rate
        places = torch.arange(6 * step, 6 * step + 6) % 40
        adam.zero_grad()
        (3 * (line(peer.x[places]) - peer.y[places]).square().mean()).backward()
        nn.utils.clip_grad_norm_(line.parameters(), 2.0)
        adam.step()
        decay = min(0.7, (1 + step) / (4 + step))
        ema = [decay * e + (1 - decay) * p.detach() for e, p in zip(ema, line.parameters(), strict=True)]
    for p, q in zip(task.modules.parameters(), line.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)
    for p, q in zip(result.ema.state().values(), ema, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


def test_accumulating_parts_equals_the_whole_batch(tmp_path):
    weights = []
    for accumulate in (1, 2, 3):
        task = Line()
        fit(task, FitConfig(steps=5, batch_size=6, lr=0.1, accumulate=accumulate), tmp_path / str(accumulate))
        weights.append(task.modules["line"].weight)
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(weights[0], weights[2], rtol=1e-10, atol=1e-12)


def test_the_losses_are_told_how_far_the_run_is(tmp_path):
    class Watching(Line):
        def losses(self, batch, generator, progress):
            told.append(progress)
            return super().losses(batch, generator, progress)

    told: list[float] = []
    fit(Watching(), FitConfig(steps=4, batch_size=6, accumulate=2), tmp_path / "steps")
    assert told == [0.0, 0.0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]
    fit(Watching(), FitConfig(steps=4, batch_size=6), tmp_path / "half")
    told.clear()
    fit(
        Watching(), FitConfig(steps=8, batch_size=6), tmp_path / "half", resume=True
    )  # half done, of the new length
    assert told == [0.5, 0.625, 0.75, 0.875]


def test_training_lowers_the_loss(tmp_path):
    fit(Line(), FitConfig(steps=100, batch_size=10, lr=0.1, weight_decay=0.0, log_every=1), tmp_path / "run")
    losses = [record["losses"]["fit"] for record in read_log(tmp_path / "run")]
    assert losses[-1] < 1e-2 * losses[0]


def test_the_same_seed_gives_the_same_weights_bit_for_bit(tmp_path):
    assert_same(tensors(*trained(tmp_path / "a", 6)), tensors(*trained(tmp_path / "b", 6)))


def test_every_step_and_part_draws_anew_and_a_second_run_draws_the_same(tmp_path):
    class Drawing(Line):
        def losses(self, batch, generator, progress):
            drawn.append((torch.rand((), generator=generator).item(), torch.rand(()).item()))
            return super().losses(batch, generator, progress)

    runs = []
    for name in ("a", "b"):
        drawn = []
        fit(Drawing(), FitConfig(steps=5, batch_size=6, accumulate=3), tmp_path / name)
        runs.append(drawn)
    assert runs[0] == runs[1]
    assert len({value for pair in runs[0] for value in pair}) == 2 * 5 * 3


def test_batches_made_ahead_change_nothing(tmp_path):
    plain, ahead = (
        trained(tmp_path / "a", 6, accumulate=2),
        trained(tmp_path / "b", 6, accumulate=2, prefetch=3),
    )
    assert_same(tensors(*plain), tensors(*ahead))


def test_another_seed_gives_other_weights(tmp_path):
    a, b = tensors(*trained(tmp_path / "a", 6)), tensors(*trained(tmp_path / "b", 6, seed=1))
    assert not torch.equal(a["net.0.weight"], b["net.0.weight"])


def test_evaluating_saving_and_logging_do_not_touch_the_training(tmp_path):
    seen = []

    def evaluate(step):
        seen.append((step, task.modules.training, torch.rand(()).item()))
        return {"score": float(step)}

    plain = trained(tmp_path / "a", 6, save_every=100, log_every=100)
    task = Toy()
    result = fit(task, config(6, evaluate_every=2), tmp_path / "b", evaluate=evaluate)
    assert_same(tensors(*plain), tensors(task, result))
    assert [(step, training) for step, training, _ in seen] == [(2, False), (4, False), (6, False)]
    assert [r["evaluation"]["score"] for r in read_log(tmp_path / "b", "evaluation")] == [2.0, 4.0, 6.0]


def test_the_callers_random_state_is_left_alone(tmp_path):
    task = Toy()
    before = torch.random.get_rng_state()
    fit(task, config(2), tmp_path / "run")
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("stopped_at", [1, 4, 7])
@pytest.mark.parametrize("changes", [{}, {"accumulate": 2}, {"precision": "bf16"}])
def test_a_run_stopped_by_sigterm_resumes_bit_for_bit(tmp_path, stopped_at, changes):
    whole = trained(tmp_path / "whole", 9, **changes)

    class Stopping(Toy):
        def batch(self, first, size):
            if first == (stopped_at - 1) * 8:
                os.kill(os.getpid(), signal.SIGTERM)  # asks to stop after this step
            return super().batch(first, size)

    part = fit(Stopping(), config(9, save_every=1000, **changes), tmp_path / "parts")
    assert (part.step, part.finished) == (stopped_at, False)
    rest = trained(tmp_path / "parts", 9, resume=True, save_every=1000, **changes)
    assert rest[1].finished
    assert_same(tensors(*whole), tensors(*rest))
    steps = [record["step"] for record in read_log(tmp_path / "parts")]
    assert steps == list(range(1, 10))


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    first = trained(tmp_path / "run", 5)
    again = trained(tmp_path / "run", 5, resume=True)
    assert again[1].finished
    assert_same(tensors(*first), tensors(*again))


def test_a_time_budget_drives_the_schedule_and_goes_on_across_a_resume(tmp_path):
    ticks = iter(range(10**6))
    budget = FitConfig(max_seconds=8.0, batch_size=8, lr=1.0, schedule="cosine", log_every=1, clip_norm=1e-9)

    class Stopping(Line):
        def batch(self, first, size):
            if first == 2 * 8:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().batch(first, size)

    part = fit(Stopping(), budget, tmp_path / "run", clock=lambda: float(next(ticks)))
    assert (part.step, part.elapsed, part.finished) == (3, 3.0, False)
    rest = fit(Line(), budget, tmp_path / "run", resume=True, clock=lambda: float(next(ticks)))
    assert (rest.step, rest.elapsed, rest.finished) == (8, 8.0, True)  # a step takes one tick of this clock
    rates = [record["lr"] for record in read_log(tmp_path / "run")]
    assert rates == pytest.approx([(1 + math.cos(math.pi * k / 8)) / 2 for k in range(8)])


def test_checkpoints_come_by_steps_by_seconds_and_at_the_end(tmp_path):
    ticks = iter(range(10**6))
    by_time = FitConfig(steps=7, save_every=100, save_every_seconds=3.0, keep_last=9)
    fit(Line(), by_time, tmp_path / "time", clock=lambda: float(next(ticks)))
    assert list(checkpoints(tmp_path / "time")) == [3, 6, 7]
    fit(Line(), FitConfig(steps=7, save_every=2, keep_last=3), tmp_path / "steps")
    assert list(checkpoints(tmp_path / "steps")) == [4, 6, 7]


def test_a_loss_that_is_not_finite_stops_the_run_and_saves_nothing_bad(tmp_path):
    class Broken(Toy):
        def losses(self, batch, generator, progress):
            made = super().losses(batch, generator, progress)
            bad = made.terms["fit"][1] * float("nan" if self.calls == 4 else 1)
            return Losses({**made.terms, "fit": (1.0, bad)})

    with pytest.raises(RunError, match="not finite at step 3: loss fit"):
        fit(Broken(), config(5), tmp_path / "run")
    assert max(checkpoints(tmp_path / "run")) == 3
    assert [record["step"] for record in read_log(tmp_path / "run")] == [1, 2, 3]
    assert_same(tensors(*trained(tmp_path / "run", 5, resume=True)), tensors(*trained(tmp_path / "b", 5)))


def test_out_of_memory_in_a_step_names_the_batch_size(tmp_path):
    class Greedy(Toy):
        def losses(self, batch, generator, progress):
            torch.empty(2**60)
            raise AssertionError

    with pytest.raises(RunError, match="out of memory at 8 samples a pass"):
        fit(Greedy(), config(2), tmp_path / "run")


def test_a_full_disk_in_a_save_keeps_the_run_resumable(tmp_path, monkeypatch):
    whole, replace = trained(tmp_path / "whole", 5), os.replace

    def full(source, target):
        if Path(target).name == "step-00000003":
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(RunError, match="No space left on device; step 2 is kept"):
            trained(tmp_path / "run", 5)
    assert list(checkpoints(tmp_path / "run")) == [1, 2]
    assert_same(tensors(*whole), tensors(*trained(tmp_path / "run", 5, resume=True)))


def test_a_disk_too_full_for_one_checkpoint_is_known_before_training(tmp_path, monkeypatch):
    task = Toy()
    fit(task, config(1), tmp_path / "a")
    written = sum(f.stat().st_size for f in (tmp_path / "a" / "checkpoints").rglob("*.safetensors"))
    need = TrainState.fresh(task, config(1)).size()
    assert 0.3 * written < need <= written  # the rest are headers, large only beside so small a net
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, need - 1))
    with pytest.raises(RunError, match=r"a checkpoint takes 0 MiB .* 0 MiB of disk left; make room"):
        fit(Toy(), config(1), tmp_path / "b")


def test_a_run_is_not_overwritten_without_resume(tmp_path):
    trained(tmp_path / "run", 2)
    with pytest.raises(RunError, match="holds a run at step 2; pass --resume"):
        trained(tmp_path / "run", 2)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"no run folder .*nowhere to resume"):
        trained(tmp_path / "nowhere", 2, resume=True)
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "thesis.tex").write_text("years of work")
    for resume in (False, True):
        with pytest.raises(RunError, match="not a run folder"):
            trained(tmp_path, 2, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_checkpoint_of_another_model_names_the_tensors(tmp_path):
    trained(tmp_path / "run", 2)
    with pytest.raises(CheckpointError, match=r"another shape net.0.weight \(7, 5\), not \(6, 5\).*preset"):
        fit(Toy(width=6), config(4), tmp_path / "run", resume=True)
    other = Toy()
    other.modules["extra"] = nn.Linear(1, 1)
    with pytest.raises(CheckpointError, match=r"lacks extra.weight, extra.bias; use the preset"):
        fit(other, config(4), tmp_path / "run", resume=True)
    fewer = Toy()
    del fewer.modules["table"]
    with pytest.raises(CheckpointError, match=r"has besides table.weight"):
        fit(fewer, config(4), tmp_path / "run", resume=True)


def test_settings_changed_on_resume_are_in_the_log_and_the_config_says_all(tmp_path):
    trained(tmp_path / "run", 2)
    trained(tmp_path / "run", 4, resume=True, lr=0.5)
    assert read_log(tmp_path / "run", "event") == [
        {
            "step": 2,
            "event": "resumed with other settings",
            "changed": {"fit.steps": [2, 4], "fit.lr": [3e-3, 0.5]},
        }
    ]
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["task"] == {"name": "toy", "seed": 3}
    assert record["fit"]["lr"] == 0.5
    assert (
        record["versions"]["torch"] == torch.__version__.split("+")[0]
        or record["versions"]["torch"] == torch.__version__
    )
    assert len(record["starts"]) == 2
    assert record["device"]["device"] == "cpu"


def test_the_loop_shows_every_step_to_its_progress_line(tmp_path):
    shown = []

    class Shown:
        def show(self, done, text):
            shown.append((done, text))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            shown.append("closed")

    fit(Line(), FitConfig(steps=4, log_every=2), tmp_path / "run", progress=Shown())
    assert [done for done, _ in shown[:-1]] == [0.25, 0.5, 0.75, 1.0]
    assert shown[3][1].startswith("step 4 · ")
    assert shown[-1] == "closed"


def test_frozen_tied_and_spared_weights_stay_what_they_are(tmp_path):
    fresh, (task, _) = Toy(), trained(tmp_path / "run", 3)
    assert torch.equal(task.modules["frozen"].weight, fresh.modules["frozen"].weight)
    assert task.modules["same"].weight is task.modules["position"].weight
    assert not decays(task.modules, task.no_decay)["position.weight"]
    assert task.calls == 3
