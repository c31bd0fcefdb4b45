"""What several processes save, another number of them reads, and one, bit for bit; a rank's fault is everybody's."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cf_apps.engine.saving.checkpoint import checkpoint_folder, load_checkpoint
from safetensors import safe_open

sys.path.insert(0, str(Path(__file__).parent))
from engine_shards import NUMBERS, tensors


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folders of engine_shards.py, whose own checks between two and three ranks have held."""
    folder = tmp_path_factory.mktemp("shards")
    script = Path(__file__).with_name("engine_shards.py")
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # what PyTorch warns and logs on the way is not for users
    return folder


@pytest.mark.parametrize(("step", "ranks"), [(2, 2), (3, 3)])
def test_one_process_reads_what_two_and_three_wrote(saved, step, ranks):
    folder = checkpoint_folder(saved / "tensors", step)
    parts, state = load_checkpoint(folder)
    assert state["step"] == step
    assert parts["weights"].keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert torch.equal(parts["weights"][name], tensor), name
        assert parts["weights"][name].dtype == tensor.dtype
    assert len(list(folder.glob("weights-*.safetensors"))) == ranks
    if step == 2:
        assert state == NUMBERS
        assert torch.equal(parts["optimizer"]["rows"], -tensors()["rows"])


def test_a_tensor_that_every_rank_has_is_written_by_one(saved):
    for step, n in ((2, 2), (3, 3)):
        keys = []
        for path in checkpoint_folder(saved / "tensors", step).glob("weights-*.safetensors"):
            with safe_open(path, "pt") as file:
                keys += file.keys()
        assert len(keys) == len(set(keys))
        assert {"plain", "scalar", "count", "same"} <= set(keys)
        assert {key.split("@")[0] for key in keys} == set(tensors())
        assert sum(key.startswith("rows@") for key in keys) == n
        assert sum(key.startswith("few@") for key in keys) == 2  # two rows, so a third rank has none


def test_a_training_sharded_over_three_ranks_is_read_by_one_as_two_had_saved_it(saved):
    expected = torch.load(saved / "expected.pt")
    parts, state = load_checkpoint(checkpoint_folder(saved / "training", 3))
    found = {f"{part}/{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert {name.rsplit("/")[-1] for name in parts["optimizer"]} == {"step", "exp_avg", "exp_avg_sq"}
    assert state["extra"] == {"skipped": 1}
