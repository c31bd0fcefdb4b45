"""Weight files are checked before they are believed."""

import hashlib

import pytest
import torch
from cf_eval.images.weights import WeightFile, file_sha256, load_weights, state_sha256


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "net.pth"
    torch.save({"w": torch.arange(3.0), "n": torch.tensor(2)}, path)
    return path, WeightFile("net-0123.pth", file_sha256(path)[:8], path.stat().st_size)


def test_the_right_file_is_loaded_and_its_hash_given(saved):
    state, sha256 = load_weights(*saved)
    assert state["w"].tolist() == [0, 1, 2]
    assert sha256 == hashlib.sha256(saved[0].read_bytes()).hexdigest()


def test_a_truncated_file_is_called_truncated(saved):
    path, expected = saved
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"net-0123.pth at least .*: the copy is truncated"):
        load_weights(path, expected)


def test_a_file_with_one_byte_changed_is_refused(saved):
    path, expected = saved
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="another or a damaged file"):
        load_weights(path, expected)


def test_a_missing_file_and_one_without_tensors_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"give the path of net.pth"):
        load_weights(tmp_path / "no.pth", WeightFile("net.pth", "", 1))
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds no state dict"):
        load_weights(tmp_path / "list.pth", WeightFile("net.pth", "", 1))


def test_a_state_s_hash_knows_names_values_shapes_and_types_and_no_order():
    a, b = torch.arange(6.0), torch.tensor(3)
    whole = state_sha256({"a": a, "b": b})
    assert state_sha256({"b": b, "a": a}) == whole
    changed = [
        {"a": a, "c": b}, {"a": a + 1, "b": b}, {"a": a.view(2, 3), "b": b}, {"a": a.double(), "b": b},
        {"a": a.bfloat16(), "b": b},
    ]  # fmt: skip
    assert len({whole, *(state_sha256(state) for state in changed)}) == 6
