import pytest
import torch
from cf_encoders.weight_files import filled, replaced, require_match
from torch import nn


def test_a_file_is_replaced_when_the_block_ends_and_others_may_read_it(tmp_path):
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


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path):
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


def test_every_kind_of_mismatch_is_told_at_once_and_a_long_list_is_cut():
    expected = {"a": (1,), "b": (2, 3), "c": ()}
    require_match(dict(reversed(expected.items())), expected, "x")
    with pytest.raises(
        ValueError,
        match=r"x does not .*; 1 missing: a; 1 unexpected: d; 1 of .* b is \(3, 2\), expected \(2, 3\)$",
    ):
        require_match({"b": (3, 2), "c": (), "d": (1,)}, expected, "x")
    with pytest.raises(ValueError, match=r"11 missing: t0(, t\d){7} and 3 more$"):
        require_match({}, {f"t{i}": () for i in range(11)}, "x")


def test_a_filled_model_is_made_of_the_tensors_themselves_and_is_in_eval_mode(generator):
    state = {"weight": torch.randn(3, 2, generator=generator).bfloat16(), "bias": torch.zeros(3)}
    model = filled(lambda: nn.Linear(2, 3), state, "x")
    assert model.weight.data_ptr() == state["weight"].data_ptr()
    assert model.weight.dtype == torch.bfloat16
    assert model.weight.requires_grad
    assert not model.training
    with pytest.raises(ValueError, match="x does not fit its config; 1 unexpected: bias"):
        filled(lambda: nn.Linear(2, 3, bias=False), state, "x")


class Positioned(nn.Module):
    """Adds fixed positions, computed and not stored, to a drawn layer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 3)
        self.register_buffer("positions", torch.arange(3.0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + self.positions


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_a_model_computes_for_itself_has_its_values_too(dtype, generator):
    drawn = Positioned().to(dtype)
    before = torch.get_rng_state()
    model = filled(Positioned, drawn.state_dict(), "x")
    assert torch.equal(torch.get_rng_state(), before), "the layer's first weights are drawn aside"
    x = torch.randn(4, 2, generator=generator, dtype=dtype)
    assert torch.equal(model(x), drawn(x))
    assert model(x).dtype == dtype
