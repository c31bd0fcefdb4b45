"""Checkpoints: what went in comes out; a damaged or half-written one never counts."""

import errno
import json
import resource

import pytest
import torch
from cf_apps.engine import CheckpointError, RunError
from cf_apps.engine.saving.checkpoint import (
    checkpoint_folder,
    checkpoints,
    load_checkpoint,
    remove_leftovers,
    save_checkpoint,
)

PARTS = {
    "weights": {"a": torch.arange(6.0).view(2, 3), "half": torch.tensor([1.5], dtype=torch.bfloat16)},
    "optimizer": {"a/step": torch.tensor(7.0), "turned": torch.arange(6.0).view(2, 3).T},
}


def test_tensors_and_numbers_come_back_as_they_were_saved(tmp_path):
    folder = save_checkpoint(tmp_path, 12, PARTS, {"step": 12, "elapsed": 0.1 + 0.2})
    parts, state = load_checkpoint(folder)
    assert state == {"step": 12, "elapsed": 0.1 + 0.2}
    assert parts.keys() == PARTS.keys()
    for part, tensors in PARTS.items():
        for name, tensor in tensors.items():
            assert torch.equal(parts[part][name], tensor)
            assert parts[part][name].dtype == tensor.dtype


def test_only_the_last_ones_are_kept(tmp_path):
    for step in (5, 99_999_999, 100_000_000, 7):
        save_checkpoint(tmp_path, step, PARTS, {}, keep_last=2)
    assert list(checkpoints(tmp_path)) == [99_999_999, 100_000_000]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


def test_saving_the_same_step_again_keeps_what_is_there(tmp_path):
    save_checkpoint(tmp_path, 3, PARTS, {"first": True})
    folder = save_checkpoint(tmp_path, 3, PARTS, {"first": False})
    assert load_checkpoint(folder)[1] == {"first": True}


@pytest.mark.parametrize("name", ["weights.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
def test_a_damaged_file_is_named(tmp_path, name, damage):
    folder = save_checkpoint(tmp_path, 1, PARTS, {"step": 1})
    data = bytearray((folder / name).read_bytes())
    if damage == "remove":
        (folder / name).unlink()
    else:
        data[-3] ^= 1
        (folder / name).write_bytes(data if damage == "flip" else data[:-1])
    with pytest.raises(CheckpointError, match=rf"step-00000001/{name} is damaged.*remove the folder"):
        load_checkpoint(folder)


def test_a_folder_without_its_marker_does_not_count_and_is_cleared_away(tmp_path):
    good, torn = save_checkpoint(tmp_path, 1, PARTS, {}), save_checkpoint(tmp_path, 2, PARTS, {})
    (torn / "complete.json").unlink()
    (tmp_path / "checkpoints" / ".step-00000003.77.tmp").mkdir()
    (tmp_path / "checkpoints" / "notes").mkdir()
    assert list(checkpoints(tmp_path)) == [1]
    with pytest.raises(CheckpointError, match="not a complete checkpoint"):
        load_checkpoint(torn)
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["notes", good.name]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_keeps_the_previous_checkpoint_and_leaves_nothing_else(tmp_path, monkeypatch, failing):
    save_checkpoint(tmp_path, 1, PARTS, {})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(f"os.{failing}", full)
        with pytest.raises(RunError, match="No space left on device; step 1 is kept, make room"):
            save_checkpoint(tmp_path, 2, PARTS, {})
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    load_checkpoint(checkpoint_folder(tmp_path, 1))


def test_a_file_the_system_refuses_to_write_is_the_same_error(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(RunError, match=r"File too large.*make room"):
            save_checkpoint(tmp_path, 2, {"weights": {"big": torch.zeros(100_000)}}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_the_marker_lists_every_other_file(tmp_path):
    folder = save_checkpoint(tmp_path, 1, PARTS, {})
    listed = set(json.loads((folder / "complete.json").read_text()))
    assert listed == {path.name for path in folder.iterdir()} - {"complete.json"}
