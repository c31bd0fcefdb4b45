import pytest
import torch
from cf_transformer.weight_files import filled, replaced, require_match
from torch import nn


def test_a_file_is_replaced_at_the_end_of_the_block_and_readable_by_others(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"old")
    mode = path.stat().st_mode
    with replaced(path) as temporary:
        temporary.write_bytes(b"new")
        temporary.chmod(0o600)  # as safetensors does
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode == mode
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"old")

    def write_half() -> None:
        with replaced(path) as temporary:
            temporary.write_bytes(b"ne")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_every_kind_of_mismatch_is_told_at_once():
    expected = {"a": (1,), "b": (2, 3), "c": ()}
    require_match(expected, dict(reversed(expected.items())), "x")
    with pytest.raises(
        ValueError, match=r"x does not .*; 1 missing: a; 1 unexpected: d; 1 of .* b is \(3, 2\), exp"
    ):
        require_match({"b": (3, 2), "c": (), "d": (1,)}, expected, "x")


def test_a_filled_model_is_made_of_the_tensors_themselves(generator):
    state = {"weight": torch.randn(3, 2, generator=generator).bfloat16(), "bias": torch.zeros(3)}
    model = filled(lambda: nn.Linear(2, 3), state, "x")
    assert model.weight.data_ptr() == state["weight"].data_ptr()
    assert model.weight.dtype == torch.bfloat16
    assert model.weight.requires_grad
    with pytest.raises(ValueError, match="x does not fit its config; 1 unexpected: bias"):
        filled(lambda: nn.Linear(2, 3, bias=False), state, "x")
