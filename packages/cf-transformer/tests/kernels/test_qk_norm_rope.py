"""Norm and rotation of q and k: the formula against complex numbers, the kernels against the formula in float64."""

from importlib import import_module

import pytest
import torch
from cf_transformer.kernels import dispatch, launch
from cf_transformer.kernels.attention import attention
from cf_transformer.kernels.qk_norm_rope import qk_norm_rope
from cf_transformer.kernels.reference_attention import reference_qk_norm_rope
from torch import Tensor
from torch.utils.checkpoint import checkpoint

module = import_module(
    "cf_transformer.kernels.qk_norm_rope"
)  # the package may call its function by the same name
HEADS = 4
F64, F32, F16, BF16 = torch.float64, torch.float32, torch.float16, torch.bfloat16
NAMES = ("qkv", "cos", "sin", "gain")


def inputs(n: int, e: int, dtype: torch.dtype = F64, b: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """qkv in a dtype, and tables and gains in its accumulator's; token 0 is not turned."""
    generator = torch.Generator(torch.get_default_device()).manual_seed(n * e)
    qkv = torch.randn(b, n, 3, HEADS, e, generator=generator, dtype=F64)
    angle = 6 * torch.rand(n, e // 2, generator=generator, dtype=F64)
    angle[0] = 0
    gain = 0.5 + torch.rand(2, HEADS, generator=generator, dtype=F64)
    wide = launch.accumulator(dtype)
    return qkv.to(dtype), angle.cos().to(wide), angle.sin().to(wide), gain.to(wide)


def formula(qkv: Tensor, cos: Tensor, sin: Tensor, gain: Tensor) -> Tensor:
    """A pair is a complex number, a rotation the product with another."""
    qk = gain[..., None] * qkv[:, :, :2] / (qkv[:, :, :2].square().mean(-1, keepdim=True) + 1e-6).sqrt()
    first, second = qk.tensor_split(2, dim=-1)
    turned = torch.complex(first, second) * torch.complex(cos, sin)[None, :, None, None]
    return torch.cat([torch.cat([turned.real, turned.imag], dim=-1), qkv[:, :, 2:]], dim=2)


def with_gradients(function, leaves, dout: Tensor) -> list[Tensor]:
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    out = function(*leaves)
    return [out, *torch.autograd.grad(out, leaves, dout)]


def assert_right(leaves, norm_error, tolerance: float, function=qk_norm_rope) -> None:
    """Result and all gradients against the formula's in float64."""
    dout = torch.randn(
        leaves[0].shape, generator=torch.Generator(torch.get_default_device()).manual_seed(1), dtype=F64
    ).to(leaves[0].dtype)
    ours = with_gradients(function, leaves, dout)
    expected = with_gradients(formula, [leaf.double() for leaf in leaves], dout.double())
    assert [x.dtype for x in ours] == [leaves[0].dtype, *(leaf.dtype for leaf in leaves)]
    assert torch.equal(ours[0][:, :, 2], leaves[0][:, :, 2])
    assert torch.equal(ours[1][:, :, 2], dout[:, :, 2])
    for name, a, b in zip(("out", *NAMES), ours, expected, strict=True):
        # a gain's gradient is a sum of terms of both signs that nearly cancel; their roundings do not
        assert norm_error(a, b) < tolerance * (10 if name == "gain" else 1), name


# ------------------------------------------------------------------------------------------------- the torch path


@pytest.mark.parametrize(("n", "e"), [(1, 2), (5, 6), (4, 16)])
def test_the_reference_is_the_product_of_complex_numbers(n, e):
    leaves = inputs(n, e)
    torch.testing.assert_close(reference_qk_norm_rope(*leaves), formula(*leaves), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [F16, BF16])
def test_the_reference_computes_in_fp32_and_returns_the_precision_it_got(dtype):
    qkv, *rest = inputs(5, 6, dtype)
    assert torch.equal(
        reference_qk_norm_rope(qkv, *rest), reference_qk_norm_rope(qkv.float(), *rest).to(dtype)
    )


def test_logits_depend_on_the_distance_of_two_tokens_only():
    vectors = inputs(1, 6, b=1)[0].expand(-1, 8, -1, -1, -1)
    angle = torch.arange(8, dtype=F64)[:, None] * torch.tensor([1.0, 0.3, 0.1], dtype=F64)
    q, k, _ = qk_norm_rope(vectors, angle.cos(), angle.sin(), torch.ones(2, HEADS, dtype=F64)).unbind(2)
    logits = torch.einsum("bike,bjke->bkij", q, k)
    torch.testing.assert_close(logits[..., 1:, 1:], logits[..., :-1, :-1], rtol=1e-12, atol=1e-12)
    assert (logits[..., 0, 3] - logits[..., 3, 0]).abs().min() > 1e-3


def test_every_head_has_length_gain_times_the_root_of_its_width():
    qkv, cos, sin, gain = inputs(5, 6)
    length = qk_norm_rope(1e3 * qkv, cos, sin, gain)[:, :, :2].norm(dim=-1)
    torch.testing.assert_close(length, (gain * 6**0.5).expand_as(length), rtol=1e-9, atol=0)


def test_a_shape_that_does_not_fit_is_an_error_that_says_what_would():
    qkv, cos, sin, gain = inputs(5, 6)
    with pytest.raises(ValueError, match="a head of 5 channels has no pairs to turn"):
        qk_norm_rope(qkv[..., :5], cos, sin, gain)
    with pytest.raises(ValueError, match=r"cos has shape \(4, 3\), 5 tokens and 3 pairs ask for \(5, 3\)"):
        qk_norm_rope(qkv, cos[1:], sin, gain)
    with pytest.raises(ValueError, match=r"sin has shape \(5, 2\)"):
        qk_norm_rope(qkv, cos, sin[:, 1:], gain)
    with pytest.raises(ValueError, match=r"gain has shape \(4,\), q and k with 4 heads ask for \(2, 4\)"):
        qk_norm_rope(qkv, cos, sin, gain[0])


# ---------------------------------------------------------------------------------------------------- the kernels


@pytest.mark.interpreter
@pytest.mark.parametrize(("n", "e"), [(1, 16), (2, 32), (17, 60), (33, 16), (65, 32), (3, 130)])
def test_the_kernels_are_the_formula_in_float64(n, e, in_triton, norm_error, tolerance):
    assert_right(inputs(n, e), norm_error, tolerance[F64])


@pytest.mark.interpreter
@pytest.mark.parametrize("dtype", [F32, F16, BF16])
@pytest.mark.parametrize(("n", "e"), [(1, 16), (17, 60), (65, 32)])
def test_in_less_precision_the_kernels_are_a_few_roundings_away(
    dtype, n, e, in_triton, norm_error, tolerance
):
    assert_right(inputs(n, e, dtype), norm_error, tolerance[dtype])


@pytest.mark.interpreter
@pytest.mark.parametrize(("programs", "turn"), [(1, 4), (13, 2), (10**6, 1)])
def test_a_program_may_take_one_head_or_many(programs, turn, in_triton, norm_error, tolerance, monkeypatch):
    monkeypatch.setattr(launch, "PROGRAMS", programs)
    leaves = inputs(33, 16)
    work = module.tile("qk_norm_rope_forward", 16, F64)
    assert work.rows == 32  # so that two samples of 33 tokens are four tiles
    assert module._constants(leaves[0], work)["TURN"] == turn
    assert_right(leaves, norm_error, tolerance[F64])


@pytest.mark.interpreter
@pytest.mark.parametrize(("n", "e"), [(2, 60), (33, 16)])
def test_every_element_is_written_and_nothing_beside_it(n, e, in_triton, guarded, norm_error, tolerance):
    assert_right(inputs(n, e, F32), norm_error, tolerance[F32])


@pytest.mark.interpreter
def test_inputs_may_lie_anywhere_in_larger_tensors(in_triton, in_nan, norm_error, tolerance):
    leaves = inputs(17, 12)
    apart = [in_nan(leaf).requires_grad_() for leaf in leaves]
    out = qk_norm_rope(*apart)
    dout = in_nan(
        torch.randn(
            out.shape, generator=torch.Generator(torch.get_default_device()).manual_seed(1), dtype=F64
        )
    )
    ours, expected = torch.autograd.grad(out, apart, dout), with_gradients(formula, leaves, dout)
    for a, b in zip((out, *ours), expected, strict=True):
        assert norm_error(a, b) < tolerance[F64]


@pytest.mark.interpreter
def test_a_table_need_not_hold_rotations(in_triton, norm_error, tolerance):
    """As tables in bf16 do not quite, or those of a method that scales logits by position."""
    qkv, cos, sin, gain = inputs(17, 12)
    assert_right((qkv, 1.5 * cos + 0.3, 0.7 * sin + 0.3, gain), norm_error, tolerance[F64])


@pytest.mark.interpreter
def test_a_gain_may_be_negative_and_one_of_zero_harms_only_its_own_gradient(in_triton, norm_error, tolerance):
    qkv, cos, sin, gain = inputs(5, 12)
    gain[0, 1], gain[1, 2] = -gain[0, 1], 0
    ours = with_gradients(qk_norm_rope, (qkv, cos, sin, gain), qkv.cos())
    expected = with_gradients(formula, (qkv, cos, sin, gain), qkv.cos())
    expected[-1][1, 2] = 0
    for a, b in zip(ours, expected, strict=True):
        assert norm_error(a, b) < tolerance[F64]


@pytest.mark.interpreter
def test_tables_that_do_not_learn_cost_nothing(in_triton, norm_error, tolerance):
    qkv, cos, sin, gain = inputs(17, 12)
    leaf = qkv.clone().requires_grad_()
    dqkv = torch.autograd.grad(qk_norm_rope(leaf, cos, sin, gain), leaf, qkv.cos())[0]
    assert norm_error(dqkv, with_gradients(formula, (qkv, cos, sin, gain), qkv.cos())[1]) < tolerance[F64]
    out, rstd = torch.ops.cf_transformer.qk_norm_rope_forward(qkv, cos, sin, gain)
    sums = torch.ops.cf_transformer.qk_norm_rope_backward(qkv, out, cos, sin, gain, rstd, False)
    assert [x.numel() for x in sums[1:3]] == [0, 0]


@pytest.mark.interpreter
def test_only_one_of_the_tables_may_learn(in_triton, norm_error, tolerance):
    leaves = list(inputs(5, 12))
    expected = with_gradients(formula, leaves, leaves[0].cos())[3]
    leaves[2].requires_grad_()
    dsin = torch.autograd.grad(qk_norm_rope(*leaves), leaves[2], leaves[0].cos())[0]
    assert norm_error(dsin, expected) < tolerance[F64]


@pytest.mark.interpreter
def test_a_token_without_a_position_is_normalised_and_not_turned(in_triton):
    qkv, cos, sin, gain = inputs(5, 16)
    indicator = qk_norm_rope(qkv, cos, sin, gain)[:, :1]
    still = qk_norm_rope(qkv[:, :1], torch.ones(1, 8).double(), torch.zeros(1, 8).double(), gain)
    assert torch.equal(indicator, still)
    root = qkv[:, :1, :2].square().mean(-1, keepdim=True).add(1e-6).sqrt()
    torch.testing.assert_close(
        indicator[:, :, :2], gain[..., None] * qkv[:, :1, :2] / root, rtol=1e-12, atol=0
    )


@pytest.mark.interpreter
def test_normed_and_turned_heads_attend_by_the_kernels_as_by_torch(in_triton, norm_error, tolerance):
    leaves = inputs(33, 16)
    dout = leaves[0][:, :, 0].cos()
    ours = with_gradients(lambda *x: attention(qk_norm_rope(*x)), leaves, dout)
    with dispatch.using("torch"):
        theirs = with_gradients(lambda *x: attention(qk_norm_rope(*x)), leaves, dout)
    for a, b in zip(ours, theirs, strict=True):
        assert norm_error(a, b) < 10 * tolerance[F64]


@pytest.mark.interpreter
def test_the_backward_pass_gives_the_same_bits_every_time(in_triton):
    leaves = inputs(33, 16, F32)
    first, second = (with_gradients(qk_norm_rope, leaves, leaves[0].cos()) for _ in range(2))
    assert all(map(torch.equal, first, second))


@pytest.mark.interpreter
def test_the_gradients_are_the_derivatives(in_triton):
    leaves = [leaf.requires_grad_() for leaf in inputs(3, 6, b=1)]
    assert torch.autograd.gradcheck(qk_norm_rope, leaves, fast_mode=True)


@pytest.mark.interpreter
def test_a_second_derivative_is_an_error_and_not_a_zero(in_triton):
    leaves = [leaf.requires_grad_() for leaf in inputs(3, 6)]
    with pytest.raises(RuntimeError, match="the gradient of a Triton kernel cannot be differentiated"):
        torch.autograd.grad(qk_norm_rope(*leaves).square().sum(), leaves, create_graph=True)


@pytest.mark.interpreter
def test_one_vector_may_be_the_gain_of_both(in_triton, norm_error, tolerance):
    *rest, gain = inputs(5, 12)
    assert_right((*rest, gain[0].expand(2, -1)), norm_error, tolerance[F64])


@pytest.mark.interpreter
@pytest.mark.parametrize("wants_table", [True, False])
def test_the_ops_keep_their_contract(wants_table):
    leaves = inputs(5, 12, F32)
    out, rstd = torch.ops.cf_transformer.qk_norm_rope_forward(*leaves)
    torch.library.opcheck(torch.ops.cf_transformer.qk_norm_rope_forward.default, leaves)
    backward = (out.cos(), out, *leaves[1:], rstd, wants_table)
    torch.library.opcheck(torch.ops.cf_transformer.qk_norm_rope_backward.default, backward)


@pytest.mark.interpreter
@pytest.mark.parametrize("learning", [4, 1])
def test_the_compiler_keeps_it_one_graph(learning, in_triton):
    leaves = list(inputs(5, 12, F32))
    learned = [leaf.requires_grad_() for leaf in leaves[:learning]]

    def loss(qkv: Tensor, *rest: Tensor) -> Tensor:
        return qk_norm_rope(2 * qkv, *rest).sin().square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*leaves), loss(*leaves))
    ours, eager = (torch.autograd.grad(function(*leaves), learned) for function in (compiled, loss))
    torch.testing.assert_close(ours, eager)


@pytest.mark.interpreter
def test_a_checkpoint_recomputes_the_same(in_triton):
    leaves = inputs(5, 12, F32)
    again = with_gradients(
        lambda *x: checkpoint(qk_norm_rope, *x, use_reentrant=False), leaves, leaves[0].cos()
    )
    assert all(map(torch.equal, again, with_gradients(qk_norm_rope, leaves, leaves[0].cos())))


@pytest.mark.interpreter
def test_autocast_changes_nothing(in_triton):
    leaves = inputs(5, 12, F32)
    with torch.autocast("cpu", BF16):
        under = with_gradients(qk_norm_rope, leaves, leaves[0].cos())
    assert all(map(torch.equal, under, with_gradients(qk_norm_rope, leaves, leaves[0].cos())))


# ---------------------------------------------------------------------------------------------- when they are taken


def test_what_the_kernels_cannot_take_they_refuse(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for qkv, why in [
        (torch.ones(1, 2, 3, 1, 258), "a head has 258 channels, 256 are the most"),
        (torch.ones(0, 2, 3, 1, 16), r"there is nothing in a shape of \(0, 2, 3, 1, 16\)"),
        (torch.ones(1, 2, 3, 1, 32)[..., ::2], "the last axis of qkv has stride 2, not 1"),
    ]:
        table, gain = torch.ones(2, qkv.shape[-1] // 2), torch.ones(2, 1)
        with dispatch.using("triton"), pytest.raises(ValueError, match=f"qk_norm_rope cannot run .*: {why}"):
            qk_norm_rope(qkv, table, table, gain)
        assert qk_norm_rope(qkv, table, table, gain).shape == qkv.shape
    qkv, table = torch.ones(1, 2, 3, 1, 16), torch.ones(2, 8)
    with dispatch.using("triton"), pytest.raises(ValueError, match="sin is on meta, and qkv on cpu"):
        qk_norm_rope(qkv, table, table.to("meta"), gain)


@pytest.mark.compile
def test_the_torch_path_is_one_graph_too():
    leaves = inputs(5, 6)
    compiled = torch.compile(qk_norm_rope, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*leaves), formula(*leaves), rtol=1e-12, atol=1e-14)
