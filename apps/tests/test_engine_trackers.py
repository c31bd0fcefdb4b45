"""Trackers read the log: TensorBoard's own reader finds every number again; a library that is missing is named."""

import json
import sys
import types
from pathlib import Path

import pytest
from cf_apps.cli import run as crossflow
from cf_apps.engine import ConfigError
from cf_apps.engine.watching.show.summary import read_summary
from cf_apps.engine.watching.trackers import scalars, write_tensorboard, write_trackio

sys.path.insert(0, str(Path(__file__).parent))
from command_line import refused

LOG = [
    {"step": 10, "losses": {"fm": 2.0, "total": 3.5}, "stats": {"sigma": 0.5}, "lr": 1e-3, "elapsed": 4.0},
    {"step": 20, "event": "loss spike", "total": 9.0},
    {"step": 20, "losses": {"fm": 1.0, "total": float("nan")}, "grad_norm": 0.25, "elapsed": 8.0},
    {"step": 15, "evaluation": {"fid": 30.0, "note": "small"}},
]
TAGGED = [
    (10, 4.0, {"losses/fm": 2.0, "losses/total": 3.5, "stats/sigma": 0.5, "run/lr": 1e-3}),
    (15, None, {"evaluation/fid": 30.0}),
    (20, 8.0, {"losses/fm": 1.0, "run/grad_norm": 0.25}),
]
STARTED = 1_767_323_045  # 2026-01-02 03:04:05 UTC


@pytest.fixture
def run(tmp_path) -> Path:
    folder = tmp_path / "runs" / "toy"
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in LOG))
    starts = [{"command": "crossflow t2i train", "time": "2026-01-02T03:04:05+00:00"}]
    (folder / "config.json").write_text(
        json.dumps({"task": {"name": "t2i"}, "fit": {"lr": 1e-3}, "starts": starts})
    )
    return folder


def test_every_finite_number_of_the_log_is_tagged_in_the_order_of_the_steps(run):
    assert list(scalars(read_summary(run))) == TAGGED


def test_tensorboard_reads_back_every_number_and_a_second_writing_replaces_the_first(run, tmp_path):
    pytest.importorskip("tensorboard", reason="install 'tensorboard' to read event files back")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):
        place = write_tensorboard(read_summary(run), tmp_path / "events")
    assert place == tmp_path / "events" / "toy"
    assert len(list(place.iterdir())) == 1
    events = EventAccumulator(str(place))
    events.Reload()
    found = {
        (tag, event.step): (event.value, event.wall_time)
        for tag in events.Tags()["scalars"]
        for event in events.Scalars(tag)
    }
    times = {10: 4.0, 15: 4.0, 20: 8.0}  # an evaluation comes with the step before it
    assert found == {
        (tag, step): (pytest.approx(value), STARTED + times[step])
        for step, _, numbers in TAGGED
        for tag, value in numbers.items()
    }


def test_trackio_is_handed_every_number_by_step_as_a_run_of_its_own(run, monkeypatch):
    calls = []
    trackio = types.ModuleType("trackio")
    trackio.init = lambda **settings: calls.append(settings)
    trackio.log = lambda numbers, step: calls.append((step, numbers))
    trackio.finish = lambda: calls.append("finish")
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    assert write_trackio(read_summary(run), "mine") == "toy at step 20"
    first, *logged, last = calls
    assert (first["project"], first["name"], first["config"]) == ("mine", "toy at step 20", {"lr": 1e-3})
    assert (first["auto_log_cpu"], first["auto_log_gpu"]) == (False, False)
    assert logged == [(step, numbers) for step, _, numbers in TAGGED]
    assert last == "finish"


def test_trackio_reads_back_every_number(run, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    trackio = pytest.importorskip("trackio", reason="install 'trackio' to read a project back")
    name = write_trackio(read_summary(run), "mine")
    from trackio.sqlite_storage import SQLiteStorage

    assert name in [found.name for found in trackio.Api().runs("mine")]
    logged = SQLiteStorage.get_logs("mine", name)
    numbers = [{key: value for key, value in log.items() if key != "timestamp"} for log in logged]
    assert numbers == [{"step": step, **numbers} for step, _, numbers in TAGGED]


@pytest.mark.parametrize("library", ["tensorboard", "trackio"])
def test_a_missing_library_is_named_and_the_page_is_written_all_the_same(
    run, tmp_path, monkeypatch, capsys, library
):
    monkeypatch.setitem(sys.modules, library, None)  # an import of it fails
    words = ["show", str(run), f"--{library}", str(tmp_path / "there")]
    refused(capsys, words, f"--{library} needs the package {library}", f"pip install {library}")
    assert (run / "report.html").exists()


def test_show_writes_event_files_when_asked(run, tmp_path, capsys):
    pytest.importorskip("tensorboard", reason="install 'tensorboard' to write event files")
    assert crossflow(["show", str(run), "--tensorboard", str(tmp_path / "tb")]) == 0
    assert "tb" in capsys.readouterr().out
    assert list((tmp_path / "tb" / "toy").iterdir())


def test_a_project_that_trackio_refuses_is_an_error_of_the_user(run, monkeypatch):
    def refuse(**settings):
        raise ValueError("no / in names")

    trackio = types.ModuleType("trackio")
    trackio.init = refuse
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    with pytest.raises(ConfigError, match=r"'a/b': no / in names"):
        write_trackio(read_summary(run), "a/b")
