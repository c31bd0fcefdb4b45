"""The log: means per window, whole lines only, no line from beyond the point of resuming."""

import json

import pytest
import torch
from cf_apps.engine import Losses, RunError, read_log
from cf_apps.engine.watching.log import Log, Means, Window


def test_means_leave_out_nan_and_start_anew_when_read():
    means = Means()
    for value in (1.0, float("nan"), 4.0):
        means.add({"a": torch.tensor(value), "never": torch.tensor(float("nan"))})
    means.add({"late": torch.tensor(3.0)})
    assert means.read() == {"a": 2.5, "late": 3.0}
    assert means.read() == {}


def test_a_record_holds_means_over_the_window_and_the_rate():
    window = Window(step=10, elapsed=100.0, batch_size=8)
    for value in (1.0, 3.0):
        losses = Losses({"fm": (0.5, torch.tensor(value))}, {"fm_t0": torch.tensor(value)})
        window.add([losses], torch.tensor(2 * value))
    assert window.record(12, 104.0, lr=1e-3, waited=0.5) == {
        "step": 12,
        "losses": {"fm": 2.0, "total": 1.0},
        "stats": {"fm_t0": 2.0},
        "lr": 1e-3,
        "grad_norm": 4.0,
        "samples_per_second": 4.0,
        "data_wait": 0.125,
        "elapsed": 104.0,
    }
    assert window.text == "step 12 · 0.5 steps/s · fm 2 · total 1"


def test_a_resumed_log_drops_later_and_torn_lines(tmp_path):
    with Log(tmp_path) as log:
        for step in (5, 10, 15):
            log.write({"step": step, "losses": {"a": 1.0}})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 7, "los')  # killed while writing
    with Log(tmp_path, step=10) as log:
        log.write({"step": 10, "event": "resumed"})
        log.write({"step": 11, "losses": {"a": 2.0}})
    assert [record["step"] for record in read_log(tmp_path)] == [5, 10, 11]
    assert [record["event"] for record in read_log(tmp_path, "event")] == ["resumed"]
    assert all(json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines())


def test_lines_can_be_read_while_the_run_goes_on(tmp_path):
    with Log(tmp_path) as log:
        log.write({"step": 1, "losses": {}})
        assert len(read_log(tmp_path)) == 1


def test_a_folder_without_a_log_is_a_clear_error(tmp_path):
    with pytest.raises(RunError, match=r"no log\.jsonl"):
        read_log(tmp_path)
