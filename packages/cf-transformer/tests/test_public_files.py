import pytest
import torch
from cf_transformer.public_files import Row, gathered, read_public, split_public, spread


def test_rows_stack_public_tensors_in_their_order_and_take_them_apart_again(generator):
    rows = [Row("both", ("a.w0", "a.w1"), (2, 3)), Row("one", ("b",), (5,))]
    public = {name: torch.randn(row.shape, generator=generator) for row in rows for name in row.public}
    ours = gathered(rows, public, {"both": (4, 3), "one": (1, 5)})
    assert torch.equal(ours["both"], torch.cat([public["a.w0"], public["a.w1"]]))
    assert torch.equal(ours["one"], public["b"][None])
    again = spread(rows, ours)
    assert again.keys() == public.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in public.items())


def test_parts_are_told_apart_by_their_first_name():
    names = [
        "stages.0.x",
        "module.stages.1.y",
        "context_encoder.z",
        "open_clip.x",
        "open_clip.y",
        "open_clip_output.x",
    ]
    state = {name: torch.full((1,), float(i)) for i, name in enumerate(names)}
    parts = split_public(state)
    assert {part: list(tensors) for part, tensors in parts.items()} == {
        "backbone": ["stages.0.x", "stages.1.y"],
        "context_encoder": ["context_encoder.z"],
        "open_clip": ["open_clip.x", "open_clip.y"],
        "open_clip_output": ["open_clip_output.x"],
    }
    assert parts["backbone"]["stages.1.y"].item() == 1.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"state_dict": {"stages.0.tensor_true": torch.ones(1)}},
            "not one flat mapping .*; it holds state_dict",
        ),
        ([torch.ones(1)], "not one flat mapping from names to tensors; it holds list"),
        ({"code": pytest.raises}, "is not a file of plain tensors, and nothing else is unpickled"),
    ],
)
def test_a_file_of_something_else_is_refused(content, message, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=message):
        read_public(tmp_path / "other.pth")
