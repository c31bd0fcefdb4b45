import pytest
import torch
import torch.nn.functional as F
from cf_transformer import td_rms_norm
from cf_transformer.blocks import ConvNeXtBlock, GatedMLP, TransformerBlock


def tokens(generator: torch.Generator, n: int = 15, d: int = 6) -> torch.Tensor:
    return torch.randn(2, n, d, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("name", "gate"), [("gelu", F.gelu), ("silu", F.silu)])
def test_the_mlp_gates_the_first_branch(name, gate, shaken, generator):
    mlp = shaken(GatedMLP(6, 9, name).double())
    x = tokens(generator)
    w_0, w_1 = mlp.w_in.weight.split(9)
    b_0, b_1 = mlp.w_in.bias.split(9)
    hidden = gate(x @ w_0.T + b_0) * (x @ w_1.T + b_1)
    expected = hidden @ mlp.w_out.weight.T + mlp.w_out.bias
    torch.testing.assert_close(mlp(x), expected)


def test_gelu_is_the_exact_one():
    gate, one = GatedMLP(1, 1, "gelu").gate, torch.ones(1, 1, 1, dtype=torch.float64)
    weight, bias = torch.tensor([[1.0], [2.0]]).double(), torch.zeros(2).double()
    assert gate(one, weight, bias).item() == pytest.approx(2 * 0.8413447460685429, abs=1e-14)


def test_a_transformer_block_adds_attention_then_mlp_each_after_its_own_norm(shaken, generator):
    block = shaken(TransformerBlock(6, 12, 2, "gelu", "sdpa").double())
    x, gamma = tokens(generator), torch.randn(2, 2, 1, 6, generator=generator, dtype=torch.float64)
    middle = x + block.attention(td_rms_norm(x, gamma[0]))
    torch.testing.assert_close(block(x, gamma), middle + block.mlp(td_rms_norm(middle, gamma[1])))


def test_a_convnext_block_convolves_the_raw_grid_then_normalises(shaken, generator):
    block = shaken(ConvNeXtBlock(6, 12, (3, 5), 3, "gelu").double())
    x, gamma = tokens(generator), torch.randn(1, 2, 1, 6, generator=generator, dtype=torch.float64)
    image = x.transpose(1, 2).reshape(2, 6, 3, 5)
    convolved = F.conv2d(image, block.depthwise.weight, block.depthwise.bias, padding=1, groups=6)
    middle = x + convolved.flatten(2).transpose(1, 2)
    torch.testing.assert_close(block(x, gamma), middle + block.mlp(td_rms_norm(middle, gamma[0])))


def test_a_transformer_block_does_not_know_the_order_of_tokens(shaken, generator):
    block = shaken(TransformerBlock(6, 12, 3, "silu", "matmul").double())
    x, gamma = tokens(generator), torch.randn(2, 2, 1, 6, generator=generator, dtype=torch.float64)
    order = torch.randperm(15, generator=generator)
    torch.testing.assert_close(block(x[:, order], gamma), block(x, gamma)[:, order])


def test_a_convnext_block_moves_with_the_picture(shaken, generator):
    block = shaken(ConvNeXtBlock(4, 8, (9, 11), 7, "gelu").double())
    x = torch.zeros(1, 9, 11, 4, dtype=torch.float64)
    x[0, 4, 4] = torch.randn(4, generator=generator, dtype=torch.float64)
    moved = x.roll((1, 2), dims=(1, 2))
    gamma = torch.ones(1, 1, 1, 4, dtype=torch.float64)
    still = block(x.flatten(1, 2), gamma).reshape(1, 9, 11, 4)
    result = block(moved.flatten(1, 2), gamma).reshape(1, 9, 11, 4)
    torch.testing.assert_close(result[:, 1:, 2:], still[:, :-1, :-2])
