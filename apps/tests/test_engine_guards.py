"""Guard rails: bad steps are left out and counted, their samples kept; spikes and collapse are told once."""

import json
import math
import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from cf_apps.engine import FitConfig, Losses, RunError, fit, read_log
from cf_apps.engine.guards import BAD_BATCHES, FEWEST, SETTLING, SPIKE, Guard, Source, Spikes, robust_z
from cf_apps.engine.ranks.world import World
from cf_apps.engine.watching.lines import read_lines
from cf_apps.engine.watching.log import Log
from torch import nn

NAN, INF = float("nan"), float("inf")
HEALTHY = {"sigma": 0.4, "mean_abs": 0.2, "readable": 0.98}
FINE = torch.tensor(1.0)


class Nameless:
    """A task that the guard only asks for its samples."""

    no_decay = ()
    modules = nn.ModuleDict()

    def describe(self):
        return {}

    def batch(self, first, size):
        raise AssertionError

    def losses(self, batch, generator, progress):
        raise AssertionError


class Named(Nameless):
    def samples(self, first, size):
        return [f"picture-{place}.png" for place in range(first, first + size)]


@dataclass(frozen=True)
class Pair(World):
    """Two ranks in one process: sums and gathers what `other`, the second one, says."""

    other: Any = None

    def total(self, x):
        return x + torch.tensor(self.other[0], dtype=x.dtype)

    def everyone(self, value):
        return [value, self.other[1]]


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def losses(flow: float, kl: float = 2.0) -> Losses:
    return Losses({"flow": (1.0, torch.tensor(float(flow))), "kl": (0.5, torch.tensor(kl))})


def guard(run, log, task=None, world=None, **settings) -> Guard:
    return Guard(FitConfig(steps=100_000, **settings), task or Nameless(), run, log, world)


def admitted(guard: Guard, values, first_step: int = 0) -> list[bool]:
    """One step a value, of one pass of 4 samples."""
    return [
        guard.admit([losses(value)], FINE, step, [(4 * step, 4)])
        for step, value in enumerate(values, start=first_step)
    ]


# ------------------------------------------------------------------------------------------------- not finite


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_bad_loss_leaves_its_step_out_and_names_its_samples(run, capsys, bad):
    with Log(run) as log:
        assert admitted(guard(run, log, Named(), skip_steps=1), [1.0, bad, 1.0]) == [True, False, True]
    expected = {
        "step": 1,
        "not_finite": ["flow"],
        "batches": [
            {
                "rank": 0,
                "first": 4,
                "size": 4,
                "not_finite": ["flow"],
                "losses": {"flow": str(bad), "kl": 2.0, "total": str(bad)},
                "samples": [f"picture-{place}.png" for place in range(4, 8)],
            }
        ],
    }
    assert read_lines(run / BAD_BATCHES) == [expected]
    assert read_log(run, "event") == [{"event": "step left out", **expected}]
    assert "step 1 left out, loss flow is not finite; 1 of 1" in capsys.readouterr().err


def test_only_the_passes_with_a_bad_loss_are_suspects_and_without_one_all_are(run):
    with Log(run) as log:
        careful = guard(run, log, skip_steps=2)
        parts, places = [losses(1.0), losses(1.0, NAN), losses(3.0)], [(12, 4), (16, 4), (20, 4)]
        assert not careful.admit(parts, FINE, 1, places)
        parts[1] = losses(2.0)
        assert not careful.admit(parts, torch.tensor(INF), 2, places)
        assert careful.admit(parts, FINE, 3, places)
    of_loss, of_gradient = read_lines(run / BAD_BATCHES)
    assert [(part["first"], part["not_finite"]) for part in of_loss["batches"]] == [(16, ["kl"])]
    assert of_gradient["not_finite"] == ["gradient"]
    assert [part["first"] for part in of_gradient["batches"]] == [12, 16, 20]
    assert "samples" not in of_gradient["batches"][0]  # this task cannot say


def test_a_sum_that_overflows_though_every_loss_is_finite_is_a_bad_total(run):
    with Log(run) as log:
        huge = Losses({name: (1.0, torch.tensor(3e38)) for name in ("a", "b")})
        assert not guard(run, log, skip_steps=1).admit([huge], FINE, 0, [(0, 4)])
    assert read_lines(run / BAD_BATCHES)[0]["not_finite"] == ["total"]


def test_one_bad_step_too_many_stops_the_run_and_says_where_its_samples_are(run):
    with (
        Log(run) as log,
        pytest.raises(RunError, match="not finite at step 7, as at 2, 4 to 5: loss flow") as error,
    ):
        admitted(guard(run, log, skip_steps=3), [1, 1, NAN, 1, INF, INF, 1, NAN, 1])
    assert str(run / BAD_BATCHES) in str(error.value)
    assert "skip_steps above 3" in str(error.value)
    assert [record["step"] for record in read_lines(run / BAD_BATCHES)] == [2, 4, 5, 7]
    assert [record["step"] for record in read_log(run, "event")] == [2, 4, 5, 7]


def test_without_steps_to_leave_out_the_first_bad_one_stops_the_run(run):
    with (
        Log(run) as log,
        pytest.raises(RunError, match=r"^not finite at step 0: the gradient \(every loss is finite\)"),
    ):
        guard(run, log).admit([losses(1.0)], torch.tensor(NAN), 0, [(0, 4)])
    assert len(read_lines(run / BAD_BATCHES)) == 1


def test_bad_steps_a_thousand_steps_ago_are_forgiven(run):
    with Log(run) as log:
        careful = guard(run, log, skip_steps=1)
        assert admitted(careful, [NAN], 10) == admitted(careful, [NAN], 1010) == [False]
        with pytest.raises(RunError, match="step 2009, as at 1010"):
            admitted(careful, [NAN], 2009)


def test_an_ordinary_step_waits_for_the_device_once(run, monkeypatch):
    waits = []
    for name in ("item", "tolist", "cpu", "__bool__", "__float__", "__int__"):
        original = getattr(torch.Tensor, name)

        def counted(tensor, *more, original=original, name=name):
            waits.append(name)
            return original(tensor, *more)

        monkeypatch.setattr(torch.Tensor, name, counted)
    with Log(run) as log:
        assert all(admitted(guard(run, log), [1.0] * 7))
    assert waits == ["tolist"] * 7


def test_a_resumed_run_counts_on_and_a_step_seen_again_is_kept_once(run):
    with Log(run) as log:
        first = guard(run, log, skip_steps=2)
        admitted(first, [1.0, NAN, 1.0])
        numbers = json.loads(json.dumps(first.numbers()))
        admitted(first, [NAN], 3)
    with Log(run, step=3) as log:
        second = guard(run, log, skip_steps=2)
        second.load(numbers)
        admitted(second, [NAN], 3)  # the same step once more
        assert [record["step"] for record in read_lines(run / BAD_BATCHES)] == [1, 3]
        with pytest.raises(RunError, match="as at 1, 3"):
            admitted(second, [NAN], 4)
        guard(run, log).load({})  # a checkpoint from before there were guards


def test_a_bad_loss_of_another_rank_counts_here_and_is_named(run):
    theirs = [{"rank": 1, "first": 2, "size": 2, "not_finite": ["kl"], "losses": {"kl": "nan"}}]
    world = Pair(0, 2, 0, None, torch.device("cpu"), ([1.0, NAN], theirs))
    with Log(run) as log:
        assert not guard(run, log, Named(), world, skip_steps=1).admit([losses(1.0)], FINE, 0, [(0, 2)])
    (record,) = read_lines(run / BAD_BATCHES)
    assert record["not_finite"] == ["kl"]
    assert [(part["rank"], part["samples"]) for part in record["batches"]] == [
        (1, ["picture-2.png", "picture-3.png"])
    ]


def test_only_rank_0_writes_and_speaks(run, capsys):
    world = Pair(1, 2, 0, None, torch.device("cpu"), ([0.0, 0.0], []))
    with Log(run) as log:
        quiet = guard(run, log, Named(), world, skip_steps=1)
        assert not quiet.admit([losses(NAN)], FINE, 0, [(0, 2)])
        with pytest.raises(RunError):
            quiet.admit([losses(NAN)], FINE, 1, [(0, 2)])
    assert not (run / BAD_BATCHES).exists()
    assert read_log(run, "event") == []
    assert capsys.readouterr().err == ""


# ------------------------------------------------------------------------------------------------- in the loop


class Line(Nameless):
    """y = w x + b in float64; the losses of the steps in `bad` are not finite."""

    def __init__(self, *bad: int) -> None:
        torch.manual_seed(0)
        self.modules = nn.ModuleDict({"line": nn.Linear(2, 1).double()})
        self.x = torch.randn(40, 2, dtype=torch.float64)
        self.bad = bad

    def batch(self, first, size):
        return torch.arange(first, first + size)

    def losses(self, batch, generator, progress):
        error = (self.modules["line"](self.x[batch]) - self.x[batch].sum(1, keepdim=True)).square().mean()
        return Losses({"fit": (1.0, error * (NAN if batch[0] // 4 in self.bad else 1.0))})


LINE = {"batch_size": 4, "lr": 0.1, "clip_norm": None, "weight_decay": 0.0, "log_every": 1}


def test_a_run_goes_on_past_a_bad_step_as_if_it_had_not_been(tmp_path):
    task = Line(2)
    result = fit(task, FitConfig(steps=5, skip_steps=1, **LINE), tmp_path / "run")
    assert (result.step, result.finished, result.ema.updates) == (5, True, 4)
    peer = Line()
    adam = torch.optim.AdamW(
        peer.modules.parameters(), lr=0.1, betas=(0.9, 0.9), weight_decay=0.0, foreach=False
    )
    for step in (0, 1, 3, 4):
        adam.zero_grad()
        peer.losses(peer.batch(4 * step, 4), torch.Generator(), 0.0).total.backward()
        adam.step()
    for ours, theirs in zip(task.modules.parameters(), peer.modules.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    logged = {record["step"]: record["losses"] for record in read_log(tmp_path / "run")}
    assert (logged[3], len(logged)) == ({}, 5)


def test_the_count_of_bad_steps_goes_with_the_checkpoint(tmp_path):
    fit(Line(2), FitConfig(steps=4, skip_steps=1, **LINE), tmp_path / "run")
    with pytest.raises(RunError, match="not finite at step 6, as at 2: loss fit"):
        fit(Line(6), FitConfig(steps=9, skip_steps=1, **LINE), tmp_path / "run", resume=True)


# ------------------------------------------------------------------------------------------------- spikes


def test_robust_z_is_the_z_score_of_a_normal_sample_and_does_not_see_its_outliers():
    values = np.random.default_rng(0).normal(5.0, 0.5, 20_001).tolist()
    assert robust_z(7.0, values) == pytest.approx((7.0 - 5.0) / 0.5, rel=0.03)
    assert robust_z(7.0, values + [1e9] * 200) == pytest.approx((7.0 - 5.0) / 0.5, rel=0.05)


def test_robust_z_equals_the_formula_and_a_constant_loss_has_a_spread_of_one_percent():
    values = [3.0, -1.0, 4.0, 1.5, 5.0]
    deviation = sorted(abs(value - 3.0) for value in values)[2]
    assert robust_z(9.0, values) == pytest.approx((9.0 - 3.0) / (1.4826 * deviation), rel=1e-12)
    assert robust_z(2.2, [2.0] * 9) == pytest.approx(10.0)
    assert math.isfinite(robust_z(1.0, [0.0] * 9))


def test_a_spike_is_told_when_it_begins_and_falling_losses_are_none():
    rng = np.random.default_rng(1)
    falling = 3.0 * np.exp(-np.arange(400) / 100) + 0.3 + rng.normal(0, 0.01, 400)
    falling[300:303] = [9.0, 8.0, 9.0]
    falling[350] = 5.0
    spikes = Spikes()
    told = [step for step, loss in enumerate(falling.tolist()) if spikes.score(loss) is not None]
    assert told == [300, 350]


def test_a_jump_to_a_new_level_is_one_spike_and_then_the_usual():
    spikes = Spikes()
    scores = [spikes.score(level + 0.01 * (step % 7)) for level in (1.0, 5.0) for step in range(300)]
    assert [step for step, score in enumerate(scores) if score is not None] == [300]
    assert spikes.score(30.0) is not None  # measured against the new level


def test_too_few_losses_tell_no_spike():
    spikes = Spikes()
    assert [spikes.score(1.0) for _ in range(FEWEST - 1)] == [None] * (FEWEST - 1)
    assert spikes.score(100.0) is None
    assert spikes.score(1.0) is None
    assert spikes.score(100.0) is not None


def test_a_spike_is_logged_with_its_losses_and_its_step_is_made(run):
    values = [1.0 + 0.01 * (step % 5) for step in range(60)] + [40.0]
    with Log(run) as log:
        assert all(admitted(guard(run, log), values))
    (event,) = read_log(run, "event")
    assert (event["step"], event["event"]) == (60, "loss spike")
    assert event["losses"] == {"flow": 40.0, "kl": 2.0, "total": 41.0}
    totals = [value + 1.0 for value in values[:60]]
    middle = statistics.median(totals)
    spread = max(1.4826 * statistics.median(abs(total - middle) for total in totals), 0.01 * middle)
    assert event["robust_z"] == pytest.approx((41.0 - middle) / spread, rel=1e-5)
    assert event["robust_z"] > SPIKE


def test_a_resumed_run_tells_the_same_spikes(run):
    values = [1.0 + 0.01 * (step % 5) for step in range(70)] + [40.0, 50.0]
    whole, first, second = Spikes(), Spikes(), Spikes()
    expected = [whole.score(value) for value in values]
    before = [first.score(value) for value in values[:71]]
    second.load(json.loads(json.dumps(first.numbers())))
    assert [*before, second.score(values[71])] == expected


# ------------------------------------------------------------------------------------------------- collapse


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sigma": 1e-3}, "raise the KL weight"),
        ({"readable": 0.1}, "forgotten"),
        ({"mean_abs": 5.0}, "run away"),
    ],
)
def test_a_collapse_is_told_once_when_it_lasts(run, capsys, change, words):
    with Log(run) as log:
        watching = guard(run, log, warmup_steps=100)
        for step in range(20, 2000, 20):
            ill = step in (700, 720) or step >= 1000  # the first one passes by itself
            watching.watch({"step": step, "stats": HEALTHY | (change if ill else {})})
    (event,) = read_log(run, "event")
    assert (event["step"], event["event"]) == (1040, "collapse")
    assert words in event["warning"]
    assert capsys.readouterr().err == f"warning: step 1040: {event['warning']}\n"


def test_a_source_is_not_judged_before_it_has_settled(run):
    ill = HEALTHY | {"readable": 0.0}
    source = Source(settled=100 + SETTLING)
    assert [step for step in range(0, 900, 50) if source.warning(step, ill)] == [100 + SETTLING + 100]


def test_a_second_collapse_after_a_recovery_is_told_again_also_after_a_resume():
    ill, source, told = HEALTHY | {"sigma": 0.0}, Source(settled=0), []
    for step, stats in enumerate([ill] * 5 + [HEALTHY] + [ill] * 5):
        resumed = Source(settled=0)
        resumed.load(json.loads(json.dumps(source.numbers())))
        source = resumed
        if source.warning(step, stats):
            told.append(step)
    assert told == [2, 8]


def test_tasks_whose_source_is_not_learned_draw_no_warning(run):
    with Log(run) as log:
        for step in range(1000, 1010):
            guard(run, log).watch({"step": step, "stats": {"flow_t0": 1.0}})
            guard(run, log).watch({"step": step})
    assert read_log(run, "event") == []
