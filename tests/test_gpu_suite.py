"""The GPU suite: what it counts, how it measures and judges, and that it goes on where it stopped."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from cf_transformer import preset

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS / "peers")]

import gpu_suite  # noqa: E402
from gpu import floors, parity, timing  # noqa: E402
from gpu.floors import Passes, Rates, Work  # noqa: E402
from gpu.measure import Bench, LostDevice, Op, described, measure_op  # noqa: E402
from gpu.model import rungs  # noqa: E402
from gpu.record import Record, fingerprint  # noqa: E402
from gpu.report import markdown, target_table, targets, wrongs  # noqa: E402

H100 = Rates(copy=3.0e12, matmul=790e12, fp32=60e12)
DRY = Bench(timing.Clock(dry=True), torch.device("cpu"))


# ------------------------------------------------------------------------------------------------- the floors


def test_floors_are_bytes_and_flops_by_hand():
    # 64 samples x 257 tokens x 1024 channels = 16,842,752 numbers
    assert floors.add_norm(64, 257, 1024).forward == Work(134_742_016)
    assert floors.geglu(64 * 257, 2048).forward.bytes == 6 * 64 * 257 * 2048
    assert floors.geglu(64 * 257, 2048).backward.bytes == 336_855_040
    attention = floors.attention(64, 257, 16, 64)
    assert attention.forward == Work(134_742_016, 4 * 64 * 16 * 257 * 257 * 64)
    assert attention.backward.matmul == 2.5 * attention.forward.matmul
    assert floors.concat_norm(64, 256, 67_584).forward.bytes == 4_429_185_024
    assert floors.qk_norm_rope(64, 257, 1024).forward.bytes == 1.5 * 134_742_016
    assert floors.time_lerps(2, 3, 5).forward.bytes == 4 * (4 * 15) + 4 * 30
    assert floors.depthwise(64, 1024, 512, 49).forward.fp32 == 2 * 49 * 33_554_432
    assert floors.adamw(1000).bytes == 28_000
    assert floors.hand_over(1, 2, 6, 5).forward == Work(2 * (12 + 30 + 10), 2 * 2 * 6 * 5)


def test_a_floor_is_the_slowest_of_its_three():
    norm = floors.add_norm(64, 257, 1024).forward
    assert 1e6 * norm.seconds(H100) == pytest.approx(44.9, abs=0.05)
    assert norm.bound_by(H100) == "copy"
    short, long = floors.attention(64, 257, 16, 64).forward, floors.attention(16, 1025, 16, 64).forward
    assert (short.bound_by(H100), long.bound_by(H100)) == ("copy", "matmul")
    assert 1e6 * long.seconds(H100) == pytest.approx(4 * 256 * 1025**2 * 64 / 790e6, rel=1e-9)


def test_the_whole_model_is_the_sum_of_its_ops():
    config = preset("dimr-951m")
    # ms: blocks, skips, convnext blocks, their skips, the hand-over; embeddings and the last head make 0.01
    by_hand = 65 * 0.43664 + 32 * 0.08733 + 33 * 0.26097 + 16 * 0.08699 + 5.7409
    assert 1e3 * floors.products(config, 64).seconds(H100) == pytest.approx(by_hand, abs=0.02)
    transformer = 65 * (2 * 44.914 + 44.914 + 67.371)
    convnext = 33 * (54.806 + 89.478 + 134.218)
    expected = 1e-3 * (transformer + convnext + 738.2)
    whole = 1e3 * floors.forward_seconds(config, 64, H100)
    assert whole - 1e3 * floors.products(config, 64).seconds(H100) == pytest.approx(expected, rel=1e-3)


def test_training_is_three_times_the_products_and_a_walk_over_the_weights():
    config = preset("dimr-70m")
    free = Rates(copy=math.inf, matmul=790e12, fp32=math.inf)
    three = floors.training_seconds(config, 4, 0, free)
    attention = 19 * floors.attention(4, 257, 8, 64).forward.matmul / 790e12  # forward 1, backward 2.5
    assert three == pytest.approx(3 * floors.products(config, 4).seconds(free) + 3.5 * attention)
    memory = Rates(copy=1e12, matmul=math.inf, fp32=math.inf)
    per_weight = floors.training_seconds(config, 4, 10**9, memory) - floors.training_seconds(
        config, 4, 0, memory
    )
    assert per_weight == pytest.approx(0.028)


# ------------------------------------------------------------------------------------------------ measurement


def test_sets_of_inputs_together_are_four_times_the_cache():
    assert timing.sets_needed(33 * 2**20, 50 * 2**20) == 7
    assert timing.sets_needed(10 * 2**30, 50 * 2**20) == 1
    assert timing.sets_needed(10, 0) == 1


def test_the_spread_is_median_and_fifths():
    assert timing.spread([5.0, 1.0, 2.0, 4.0, 3.0, 100.0]) == (3.5, 2.0, 5.0)


@pytest.fixture
def device_time(monkeypatch):
    """A device whose clock, in us, stands still unless something is queued on it; [now, slept]."""
    clock = [0.0, 0.0]

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = clock[0]

        def elapsed_time(self, end):
            return 1e-3 * (end.at - self.at)

    def sleep(cycles):
        clock[0] += cycles / timing.CYCLES_PER_US
        clock[1] += cycles / timing.CYCLES_PER_US

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", sleep)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    return clock


def test_an_op_is_timed_by_itself_over_all_sets_of_inputs(device_time):
    called = []

    def prepare(i):
        device_time[0] += 1000  # a forward pass, say, before the backward pass that is timed

        def call():
            called.append(i)
            device_time[0] += (7, 9, 30)[i]

        return call

    figures = timing.Clock(dry=False, op_seconds=0.01).op(prepare, n_sets=3)
    assert (figures["us"], figures["us_20"], figures["us_80"]) == pytest.approx((9, 7, 30))
    assert called[-6:] == [0, 1, 2, 0, 1, 2]
    assert figures["repeats"] % 3 == 0
    assert device_time[1] > figures["repeats"] * timing.LEAD_US  # the host is ahead whenever a call is timed


def test_a_whole_step_is_timed_on_the_wall(device_time, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    steps = []

    def step():
        steps.append(1)
        now[0] += 100.0 if len(steps) == 1 else 0.5  # the first compiles

    figures = timing.Clock(dry=False, whole_seconds=3.0).whole(step)
    assert figures == {"s": 0.5, "s_20": 0.5, "s_80": 0.5, "repeats": 6}
    assert len(steps) == 2 + 6


def product_op(**ways):
    """x w on 4 samples, to be measured by some ways."""

    def make(b: int) -> list[torch.Tensor]:
        return [torch.randn(b, 3).bfloat16().requires_grad_(), torch.randn(3, 5).bfloat16().requires_grad_()]

    return Op(4, make, {"kernel": torch.matmul, **ways}, torch.matmul, Passes(Work(1.0), Work(2.0)))


def test_errors_stand_beside_the_ways_and_a_way_that_cannot_gives_its_reason():
    def refuses(x, w):
        raise RuntimeError("only on Tuesdays\nand never twice")

    def wrong_gradient(x, w):
        return (x @ w).detach() + 0.5 * (x @ w) - 0.5 * (x @ w).detach()

    row = measure_op(product_op(wrong=wrong_gradient, flipped=lambda x, w: -(x @ w), refuses=refuses), DRY)
    assert row["errors"]["kernel"]["forward"] < 5e-3
    assert row["errors"]["kernel"]["backward"] < 5e-3
    assert row["errors"]["wrong"]["forward"] < 1e-2
    assert row["errors"]["wrong"]["backward"] == pytest.approx(0.5, abs=0.01)
    assert row["errors"]["flipped"]["forward"] == pytest.approx(2, abs=0.01)
    assert row["failed"] == {"refuses": "RuntimeError: only on Tuesdays"}
    assert row["inputs"] == ["(4, 3) bfloat16", "(3, 5) bfloat16"]


def test_a_result_that_is_no_number_is_a_failure():
    row = measure_op(product_op(nan=lambda x, w: (x @ w) * math.nan), DRY)
    assert row["failed"]["nan"].startswith("ArithmeticError: not a number")
    assert "nan" not in row["passes"]["forward"]


def test_a_dry_run_measures_nothing():
    row = measure_op(product_op(), DRY)
    assert row["passes"] == {
        "forward": {"bytes": 1.0, "matmul": 0.0, "fp32": 0.0, "kernel": {}},
        "backward": {"bytes": 2.0, "matmul": 0.0, "fp32": 0.0, "kernel": {}},
    }


def test_equal_inputs_are_counted():
    maps = [torch.empty(2, 3) for _ in range(66)]
    assert described([*maps, torch.empty(5, dtype=torch.bfloat16)]) == [
        "66 x (2, 3) float32",
        "(5,) bfloat16",
    ]


def test_what_does_not_fit_is_recomputed_first_and_split_last():
    assert rungs(("nothing", "blocks"), 12) == [("nothing", 1), ("blocks", 1), ("blocks", 2), ("blocks", 4)]


def test_a_gap_is_the_largest_difference_over_the_first_loss():
    assert parity.averaged([1.0, 3.0, 5.0], 2) == [2.0, 4.0]
    assert parity.gap([2.0, 4.0], [4.0, 4.5]) == 0.5


# ------------------------------------------------------------------------------------------ the suite as a whole


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """Runs the suite dry and returns what it wrote; the sources count as the same, also if somebody edits them."""
    monkeypatch.setattr(gpu_suite, "fingerprint", lambda files: "s")
    monkeypatch.setattr(gpu_suite, "commit", lambda: "c")

    def run(*arguments: str) -> dict:
        monkeypatch.setattr(
            sys, "argv", ["gpu_suite.py", "--dry", "--out", str(tmp_path / "a.json"), *arguments]
        )
        gpu_suite.main()
        return json.loads((tmp_path / "a.json").read_text())

    return run


@pytest.fixture
def toy_parts(monkeypatch):
    """Two parts of a few rows; what was called, in order."""
    calls = []

    def row(name):
        return lambda: (
            calls.append(name) or {"passes": {}, "errors": {}, "failed": {}, "times": 1, "differed": {}}
        )

    parts = {
        "card": gpu_suite.PARTS["card"],
        "kernels": lambda bench: {name: row(name) for name in ("a", "b")},
        "repeat": lambda bench: {"c": row("c")},
    }
    monkeypatch.setattr(gpu_suite, "PARTS", parts)
    return parts, calls


def keys(tree) -> set[str]:
    """Every key of nested dicts."""
    if not isinstance(tree, dict):
        return set()
    return set(tree).union(*map(keys, tree.values()))


def test_a_dry_run_gets_to_its_end_and_holds_no_figure(suite, tmp_path, capsys):
    content = suite()
    assert content["dry"] is True
    assert set(content["parts"]) == set(gpu_suite.PARTS)
    assert not any("error" in row for rows in content["parts"].values() for row in rows.values())
    timings = {"us", "host_us", "s", "images_per_s", "mfu", "per_second", "floor_us", "peak_bytes"}
    assert not keys(content) & timings
    report = (tmp_path / "a.md").read_text()
    assert "nothing was measured" in report
    assert report in capsys.readouterr().out
    reasons = {
        why for rows in content["parts"].values() for row in rows.values() for why in row.get("failed", {})
    }
    assert reasons <= {"cudnn", "efficient", "flash", "sampling", "all"}  # what a CPU does not have
    assert all(sum(row["differed"].values()) == 0 for row in content["parts"]["repeat"].values())
    again = suite()
    assert again == content


def test_rows_that_are_there_are_not_measured_again(suite, toy_parts):
    _, calls = toy_parts
    suite("--parts", "kernels")
    suite()
    assert calls == ["a", "b", "c"]
    suite("--again", "kernels/b")
    assert calls == ["a", "b", "c", "b"]


def test_without_time_rows_are_left_for_the_next_call(suite, toy_parts, monkeypatch, capsys):
    _, calls = toy_parts
    monkeypatch.setitem(gpu_suite.BUDGETS, "kernels", 0)
    suite()
    assert calls == ["c"]
    assert "no time left for 2 of kernels" in capsys.readouterr().out
    monkeypatch.setitem(gpu_suite.BUDGETS, "kernels", 100)
    suite()
    assert calls == ["c", "a", "b"]


def test_no_row_begins_that_would_end_too_late(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(gpu_suite.time, "time", lambda: now)
    part = gpu_suite.Deadline(began=900.0, seconds=200.0).of_part("kernels")
    assert part.allows()
    part.took(99.0)
    assert part.allows()
    part.took(100.0)
    assert not part.allows()


def test_a_row_that_fails_is_kept_with_its_reason_and_the_others_go_on(suite, toy_parts, tmp_path):
    parts, calls = toy_parts

    def fails():
        raise ValueError("a kernel that is wrong")

    parts["kernels"] = lambda bench: {"a": fails}
    with pytest.raises(SystemExit, match="kernels/a: ValueError: a kernel that is wrong"):
        suite()
    assert calls == ["c"]
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["parts"]["kernels"]["a"] == {"error": "ValueError: a kernel that is wrong"}
    assert "a kernel that is wrong" in (tmp_path / "a.md").read_text()


def test_a_lost_device_is_left_to_a_new_process(suite, toy_parts, monkeypatch):
    parts, calls = toy_parts
    taken = []

    def loses():
        raise LostDevice("an illegal address")

    monkeypatch.setenv(gpu_suite.BEGAN, "0")
    monkeypatch.delenv(gpu_suite.BEGAN)  # and what the suite sets is gone after this test
    monkeypatch.setattr(gpu_suite.os, "execv", lambda *arguments: taken.append(arguments))
    healthy = parts["kernels"]
    parts["kernels"] = lambda bench: {"x": loses, **healthy(bench)}
    content = suite("--again", "kernels")
    assert len(taken) == 1
    assert calls == []
    assert "under_way" not in content
    # the new process: same arguments, the time of the first goes on, nothing is forgotten again
    with pytest.raises(SystemExit, match="an illegal address"):
        suite("--again", "kernels")
    assert calls == ["a", "b", "c"]


def setting(**changes) -> dict:
    return {
        "command": "x",
        "commit": "y",
        "sources": "s",
        "device": "d",
        "torch": "t",
        "dry": False,
        **changes,
    }


def test_a_row_that_killed_the_process_is_an_error_and_not_begun_again(tmp_path):
    record = Record(tmp_path / "a.json", setting())
    record.add("kernels", "a", {"us": 1})
    record.begin("kernels", "b")
    after = Record(tmp_path / "a.json", setting(commit="z"))
    assert after.rows("kernels")["a"] == {"us": 1}
    assert "was ended" in after.rows("kernels")["b"]["error"]
    assert after.errors()[0].startswith("kernels/b: ")
    assert after.forget("nels/b") == ["kernels/b"]
    assert not after.has("kernels", "b")


@pytest.mark.parametrize("key", ["sources", "device", "torch", "dry"])
def test_rows_of_another_setting_are_not_gone_on_from(tmp_path, key):
    Record(tmp_path / "a.json", setting()).add("kernels", "a", {"us": 1})
    other = Record(tmp_path / "a.json", setting(**{key: "another"}))
    assert other.rows("kernels") == {}


def test_the_fingerprint_is_of_what_is_in_the_files_wherever_they_are(tmp_path):
    for folder, end in (("a", ""), ("b", ""), ("c", "!")):
        (tmp_path / folder).mkdir()
        for name in ("x.py", "y.py"):
            (tmp_path / folder / name).write_text(name + end)
    prints = [fingerprint((tmp_path / folder).glob("*")) for folder in "abc"]
    assert prints[0] == prints[1] != prints[2]


# ------------------------------------------------------------------------------------------------- the report


def passes(kernel: float, floor: float, **others: float) -> dict:
    figures = {way: {"us": us, "us_20": us, "us_80": us, "host_us": 9.0} for way, us in others.items()}
    mine = {"us": kernel, "us_20": kernel, "us_80": kernel, "host_us": 5.0}
    return {
        "bytes": 1,
        "matmul": 0,
        "fp32": 0,
        "floor_us": floor,
        "bound_by": "copy",
        "kernel": mine,
        **figures,
    }


def model_row(batch: int, training: float, sampling: float, mfu: float) -> dict:
    return {
        "batch": batch,
        "floors": {"training_s": 0.2, "guided_s": 0.1},
        "training": {
            "s": 1.0,
            "images_per_s": training,
            "mfu": mfu,
            "recompute": "nothing",
            "parts": 1,
            "peak_bytes": 2**30,
        },
        "guided": {"s": 0.5},
        "sampling": {"steps": 50, "images_per_s": sampling, "mfu": mfu, "error": 0.01},
        "failed": {},
    }


@pytest.fixture
def content():
    rms = {"forward": passes(50, 45), "backward": passes(60, 45, compiled=90, eager=70)}
    attention = {"forward": passes(70, 45, cudnn=105, flash=80), "backward": passes(1, 1)}
    nothing = {"errors": {}, "failed": {}}
    op, attention = {"passes": rms, **nothing}, {"passes": attention, **nothing}
    models = {
        "DiMR, batch 64": model_row(64, 100.0, 4.1, 0.4),
        "DiMR, compiled blocks, batch 64": model_row(64, 120.0, 3.0, 0.51),
        "public way, batch 64": model_row(64, 50.0, 1.0, 0.2),
    }
    parts = {"kernels": {"add + RMS norm": op}, "attention": {"n = 257": attention}, "model": models}
    return setting() | {"parts": parts}


def test_targets_are_ratios_of_what_was_measured(content):
    found = {aim.text: aim for aim in targets(content["parts"])}
    step = found["training step over the public way, batch 64"]
    assert (step.found, step.verdict) == (2.4, "not met")
    assert found["MFU of a training step, batch 64"].verdict == "met"
    assert found["guided sampling over the public way, batch 64"].found == 4.1
    assert found["add + RMS norm, forward: share of the copy bandwidth"].found == 0.9
    assert found["add + RMS norm, backward: share of the copy bandwidth"].verdict == "not met"
    assert found["norm backward over torch.compile"].found == 1.5
    attention = found["attention, n = 257, forward, over the best of SDPA"]
    assert attention.found == pytest.approx(80 / 70)
    assert attention.verdict == "not met"
    assert found["GEGLU, forward: share of the copy bandwidth"].verdict == "not measured"
    assert "| norm backward over torch.compile | 1.4 | 1.5 | met |" in target_table(list(found.values()))


def test_the_report_has_figures_floors_and_reasons(content):
    content["parts"]["kernels"]["GEGLU"] = {"error": "ValueError: no"}
    text = markdown(content)
    assert "| add + RMS norm | forward | kernel | 50 | 50 to 50 | 5 | 45 | 90 | - |" in text
    assert "- kernels, GEGLU: ValueError: no" in text
    row = next(line for line in text.splitlines() if line.startswith("| DiMR, compiled blocks, batch 64 |"))
    assert row.split(" | ")[1:] == [
        *("1", "0.2", "120", "51", "1.0", "nothing", "1"),
        *("0.5", "0.1", "3", "51", "-", "1.0e-02 |"),
    ]


def test_a_kernel_is_wrong_by_its_errors_its_bits_or_its_curve(content):
    parts = content["parts"]
    parts["repeat"] = {"GEGLU": {"times": 10, "differed": {"forward": 0, "backward": 0}}}
    parts["parity"] = {
        "tiny": {"steps": 2, "first": {}, "last": {}, "gap_of_bf16": 1e-3, "gap_of_kernels": 1e-3}
    }
    row = parts["kernels"]["add + RMS norm"]
    row["errors"] = {
        "kernel": {"forward": 3.9e-3, "backward": 5e-3},
        "eager": {"forward": 2e-3, "backward": 2e-3},
    }
    row["all_samples"] = {"forward": 1e-3, "backward": 1e-3}
    assert list(wrongs(parts)) == []
    assert "Nothing is wrong" in markdown(content)
    row["errors"]["kernel"]["forward"] = 4.1e-3
    row["all_samples"]["backward"] = math.inf
    row["failed"] = {"all samples": "RuntimeError: x", "compiled": "y"}
    parts["repeat"]["GEGLU"]["differed"]["backward"] = 2
    parts["parity"]["tiny"]["gap_of_kernels"] = 3e-3
    assert list(wrongs(parts)) == [
        "kernels/add + RMS norm: RuntimeError: x",
        "kernels/add + RMS norm: kernel, forward: relative error 4.1e-03, of torch 2.0e-03",
        "kernels/add + RMS norm: kernel, all samples, backward: relative error inf, of torch 2.0e-03",
        "repeat/GEGLU: 2 results of 10 calls had other bits",
        "parity/tiny: the kernels' gap is 3.0e-03, of bf16 1.0e-03",
    ]
    assert "- WRONG: repeat/GEGLU" in markdown(content)


def test_out_of_memory_is_said_where_the_time_would_be(content):
    content["parts"]["model"]["public way, batch 64"]["training"] = {
        "out_of_memory": [{"recompute": "blocks", "parts": 8}]
    }
    assert "| public way, batch 64 | out of memory |" in markdown(content)
