"""A run becomes a model file: averaged weights, the parts that sampling needs, in the dtype asked for."""

import sys
from pathlib import Path

import pytest
import torch
from cf_apps.engine import CheckpointError, RunError, export, fit, load_into, load_model
from cf_apps.engine.saving.state import named_tensors
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from engine_toy import Toy, config


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


def test_an_exported_model_is_the_average_with_buffers_and_frozen_weights(run):
    task = Toy()
    result = fit(task, config(5), run)
    export(run)
    loaded, record = load_model(run)
    assert record["task"]["name"] == "toy"
    model = Toy(seed=9)
    load_into(model.modules, loaded, "run")
    with result.ema.swapped_in():
        for name, tensor in named_tensors(task.modules).items():
            assert torch.equal(named_tensors(model.modules)[name], tensor), name
    assert not torch.equal(model.modules["table"].weight, task.modules["table"].weight)


def test_a_run_without_an_export_or_trained_on_since_gives_its_last_checkpoint(run):
    fit(Toy(), config(2), run)
    assert load_model(run)[0]["net.calls"] == 2
    export(run)
    fit(Toy(), config(4), run, resume=True)
    assert load_model(run)[0]["net.calls"] == 4
    export(run)
    assert load_model(run)[0]["net.calls"] == 4


def test_a_copied_model_needs_no_checkpoints(run, tmp_path):
    fit(Toy(), config(2), run)
    export(run)
    (tmp_path / "copy").mkdir()
    for name in ("model.safetensors", "config.json"):
        (tmp_path / "copy" / name).write_bytes((run / name).read_bytes())
    assert load_model(tmp_path / "copy")[0]["net.calls"] == 2


def test_parts_and_dtype_make_the_file_small(run):
    fit(Toy(), config(2), run)
    whole = load_model(run)[0]
    export(run, parts=["net", "table"], dtype=torch.float16)
    small = load_model(run)[0]
    assert {name.split(".")[0] for name in small} == {"net", "table"}
    assert all(tensor.dtype == torch.float16 for tensor in small.values())
    model = Toy(seed=9)
    del model.modules["table"]  # a part of the file that is not asked for
    load_into(nn.ModuleDict({"net": model.modules["net"]}), small, "run")
    assert torch.equal(model.net[0].weight, whole["net.0.weight"].half().float())


def test_wrong_parts_folders_and_files_are_named(run, tmp_path):
    with pytest.raises(RunError, match=r"not a run folder .*config\.json"):
        load_model(tmp_path)
    fit(Toy(), config(2), run)
    with pytest.raises(RunError, match="no part nett; known: frozen, net, position, table"):
        export(run, parts=["nett"])
    export(run)
    data = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(data[:-5])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        load_model(run)


def test_a_run_that_saved_nothing_says_so(run):
    run.mkdir()
    (run / "config.json").write_text("{}")
    with pytest.raises(RunError, match="no checkpoint yet"):
        load_model(run)
    (run / "config.json").write_text("{")
    with pytest.raises(RunError, match=r"cannot read .*config\.json"):
        load_model(run)


def test_a_full_disk_during_an_export_keeps_the_old_model(run, monkeypatch):
    fit(Toy(), config(2), run)
    before = export(run).read_bytes()

    def full(*_):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(RunError, match="No space left"):
            export(run, dtype=torch.float16)
    assert (run / "model.safetensors").read_bytes() == before
    assert not list(run.glob("*.tmp")) + list(run.glob(".*.tmp"))
