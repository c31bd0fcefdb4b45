"""Attention by the kernels, in the interpreter, against the formula in float64; and when they are taken."""

from importlib import import_module

import pytest
import torch
from cf_transformer.kernels import dispatch
from cf_transformer.kernels.attention import attention
from cf_transformer.kernels.reference_attention import reference_attention
from cf_transformer.kernels.tuned import Tile
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils.checkpoint import checkpoint

module = import_module(
    "cf_transformer.kernels.attention"
)  # the package may call its function by the same name
HEADS = 3
F64, F32, F16, BF16 = torch.float64, torch.float32, torch.float16, torch.bfloat16


def packed(n: int, e: int, dtype: torch.dtype = F64, b: int = 2) -> Tensor:
    generator = torch.Generator(torch.get_default_device()).manual_seed(n * e)
    return torch.randn(b, n, 3, HEADS, e, generator=generator, dtype=F64).to(dtype)


def formula(qkv: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(e)) v, one sum after the other."""
    q, k, v = qkv.unbind(2)
    logits = torch.einsum("bike,bjke->bkij", q, k) / qkv.shape[-1] ** 0.5
    weights = (logits - logits.amax(-1, keepdim=True)).exp()
    return torch.einsum("bkij,bjke->bike", weights / weights.sum(-1, keepdim=True), v)


def with_gradient(function, qkv: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
    leaf = qkv.detach().clone().requires_grad_()
    out = function(leaf)
    return out, torch.autograd.grad(out, leaf, dout)[0]


def assert_right(qkv: Tensor, norm_error, tolerance: float) -> None:
    """Result and gradient against the formula's in float64, the parts for q, k and v each on their own."""
    dout = torch.randn(
        formula(qkv).shape, generator=torch.Generator(torch.get_default_device()).manual_seed(1), dtype=F64
    ).to(qkv.dtype)
    out, dqkv = with_gradient(attention, qkv, dout)
    expected, dexpected = with_gradient(formula, qkv.double(), dout.double())
    assert (out.dtype, dqkv.dtype) == (qkv.dtype, qkv.dtype)
    assert norm_error(out, expected) < tolerance
    for part, dpart in zip(dqkv.unbind(2), dexpected.unbind(2), strict=True):
        if qkv.shape[1] > 1:
            assert norm_error(part, dpart) < tolerance
        else:  # a token alone has weight 1 whatever q and k are: zero, but for the rounding of dp - delta
            assert (part - dpart).abs().max() < tolerance * dout.norm()


# ------------------------------------------------------------------------------------------------- the torch path


def test_the_reference_is_the_formula():
    qkv = packed(5, 6)
    torch.testing.assert_close(reference_attention(qkv), formula(qkv), rtol=1e-12, atol=1e-14)


def test_autocast_does_not_lower_the_precision_of_what_was_handed_over():
    qkv = packed(5, 6, F32)
    with torch.autocast("cpu", BF16):
        assert torch.equal(attention(qkv), reference_attention(qkv))
        assert attention(qkv).dtype == F32
        assert attention(qkv.bfloat16()).dtype == BF16


# ---------------------------------------------------------------------------------------------------- the kernels


@pytest.mark.interpreter
@pytest.mark.parametrize(("n", "e"), [(1, 16), (2, 32), (17, 60), (33, 16), (65, 32), (66, 16)])
def test_the_kernels_are_the_formula_in_float64(n, e, in_triton, norm_error, tolerance):
    assert_right(packed(n, e), norm_error, tolerance[F64])


@pytest.mark.interpreter
@pytest.mark.parametrize("dtype", [F32, F16, BF16])
@pytest.mark.parametrize(("n", "e"), [(1, 16), (17, 60), (65, 32)])
def test_in_less_precision_the_kernels_are_a_few_roundings_away(
    dtype, n, e, in_triton, norm_error, tolerance
):
    assert_right(packed(n, e, dtype), norm_error, tolerance[dtype])


@pytest.mark.interpreter
@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (32, 16), (16, 32)])
@pytest.mark.parametrize("n", [33, 49, 64, 70])
def test_any_tiles_in_any_number_make_the_same_softmax(
    n, rows, columns, in_triton, norm_error, tolerance, monkeypatch
):
    monkeypatch.setattr(module, "tile", lambda *_: Tile(rows, columns, warps=4, stages=1, measured=False))
    assert_right(packed(n, 16, b=1), norm_error, tolerance[F64])


@pytest.mark.interpreter
@pytest.mark.filterwarnings(
    "ignore::RuntimeWarning"
)  # rows of dK and dV beyond the last do overflow; nobody reads them
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("n", [34, 65])
def test_no_logit_is_too_large_for_the_softmax(n, sign, in_triton, norm_error):
    """Nor too small: with every logit below -1024, a padded key of logit 0 would outweigh them without end."""
    qkv = packed(n, 16, b=1)
    qkv[:, :, 0], qkv[:, :, 1] = 3000 * sign + qkv[:, :, 0], 1 + 0.01 * qkv[:, :, 1]
    logits = torch.einsum("bike,bjke->bkij", *qkv.unbind(2)[:2]) / 4
    assert (sign * logits).min() > 1e4
    assert_right(qkv, norm_error, 1e-9)


@pytest.mark.interpreter
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("n", [34, 65])
def test_the_large_logits_may_be_in_the_first_tile_or_in_the_last(n, sign, in_triton, norm_error):
    qkv = packed(n, 16, b=1)
    step = sign * (torch.arange(n, dtype=F64) - n / 2).sign()[:, None, None]
    qkv[:, :, 0], qkv[:, :, 1] = 300 + qkv[:, :, 0], step + 1e-3 * qkv[:, :, 1]
    assert_right(qkv, norm_error, 1e-9)


@pytest.mark.interpreter
@pytest.mark.parametrize(("n", "e"), [(2, 60), (17, 16), (65, 32)])
def test_every_element_is_written_and_nothing_beside_it(n, e, in_triton, guarded, norm_error, tolerance):
    assert_right(packed(n, e, F32), norm_error, tolerance[F32])


@pytest.mark.interpreter
@pytest.mark.parametrize(("n", "e"), [(17, 60), (65, 16)])
def test_qkv_may_lie_anywhere_in_a_larger_tensor(n, e, in_triton, in_nan, norm_error, tolerance):
    qkv = packed(n, e)
    inside = in_nan(qkv)
    out = attention(inside)
    assert norm_error(out, formula(qkv)) < tolerance[F64]
    dqkv = torch.autograd.grad(attention(inside.requires_grad_()).square().sum(), inside)[0]
    expected = with_gradient(formula, qkv, 2 * out.detach())[1]
    assert norm_error(dqkv, expected) < tolerance[F64]


@pytest.mark.interpreter
def test_heads_may_lie_further_apart_than_their_width(in_triton, norm_error, tolerance):
    head_major = packed(33, 16).movedim(1, 3).contiguous().movedim(3, 1)
    assert head_major.stride(3) > 16
    assert_right(head_major, norm_error, tolerance[F64])


@pytest.mark.interpreter
def test_a_gradient_may_come_in_any_layout(in_triton, norm_error, tolerance):
    qkv = packed(17, 16)
    for dout in (
        torch.ones(()).double().expand(2, 17, HEADS, 16),
        packed(17, 16)[:, :, 1].mT.contiguous().mT,
    ):
        dqkv = with_gradient(attention, qkv, dout)[1]
        assert norm_error(dqkv, with_gradient(formula, qkv, dout)[1]) < tolerance[F64]


@pytest.mark.interpreter
def test_the_backward_pass_gives_the_same_bits_every_time(in_triton):
    qkv, dout = packed(65, 32, F32), packed(65, 32, F32)[:, :, 0]
    first, second = (with_gradient(attention, qkv, dout) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


@pytest.mark.interpreter
def test_the_gradient_is_the_derivative(in_triton):
    assert torch.autograd.gradcheck(attention, packed(3, 5, b=1).requires_grad_(), fast_mode=True)


@pytest.mark.interpreter
def test_a_second_derivative_is_an_error_and_not_a_zero(in_triton):
    qkv = packed(3, 16).requires_grad_()
    with pytest.raises(RuntimeError, match="the gradient of a Triton kernel cannot be differentiated"):
        torch.autograd.grad(attention(qkv).square().sum(), qkv, create_graph=True)


@pytest.mark.interpreter
def test_gradients_come_in_batches(in_triton):
    qkv, douts = packed(5, 16, F32).requires_grad_(), packed(5, 16, F32).movedim(2, 0)
    out = attention(qkv)
    (batch,) = torch.autograd.grad(out, qkv, douts, is_grads_batched=True, retain_graph=True)
    for dqkv, dout in zip(batch, douts, strict=True):
        assert torch.equal(dqkv, torch.autograd.grad(out, qkv, dout, retain_graph=True)[0])


@pytest.mark.interpreter
def test_the_ops_keep_their_contract():
    qkv = packed(17, 16, F32)
    out, lse = torch.ops.cf_transformer.attention_forward(qkv)
    torch.library.opcheck(torch.ops.cf_transformer.attention_forward.default, (qkv,))
    torch.library.opcheck(torch.ops.cf_transformer.attention_backward.default, (out, qkv, out, lse))


@pytest.mark.interpreter
def test_the_compiler_keeps_it_one_graph(in_triton):
    qkv, dout = packed(17, 16, F32), packed(17, 16, F32)[:, :, 0]
    compiled = torch.compile(lambda x: attention(2 * x).sin(), fullgraph=True, backend="aot_eager")
    ours, eager = (
        with_gradient(compiled, qkv, dout),
        with_gradient(lambda x: attention(2 * x).sin(), qkv, dout),
    )
    torch.testing.assert_close(ours, eager)


@pytest.mark.interpreter
def test_a_checkpoint_recomputes_the_same(in_triton):
    qkv, dout = packed(17, 16, F32), packed(17, 16, F32)[:, :, 0]
    again = with_gradient(lambda x: checkpoint(attention, x, use_reentrant=False), qkv, dout)
    assert all(map(torch.equal, again, with_gradient(attention, qkv, dout)))


@pytest.mark.interpreter
def test_autocast_does_not_lower_the_precision_of_the_kernels(in_triton, norm_error, tolerance):
    with torch.autocast("cpu", BF16):
        assert_right(packed(17, 16, F32), norm_error, tolerance[F32])


# ---------------------------------------------------------------------------------------------- when they are taken


@pytest.mark.parametrize(
    ("n", "apart", "even"),
    [(1, 1, True), (65, 1, True), (257, 1, True), (64, 0, True), (256, 0, True), (66, 0, False)],
)
def test_token_0_stands_apart_where_the_others_fill_whole_tiles(n, apart, even):
    pytest.importorskip("triton")
    work = Tile(rows=128, columns=64, warps=8, stages=2, measured=False)
    constants = module._constants(packed(n, 16), work, work.columns)
    assert (constants["APART"], constants["EVEN"]) == (apart, even)
    programs = {1: 1, 65: 2, 257: 3, 64: 1, 256: 2, 66: 1}[
        n
    ]  # of 128 queries, and one for token 0 where it is apart
    assert module._programs(packed(n, 16), 128, constants) == (2 * HEADS * programs,)


@pytest.fixture
def on_h100(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(dispatch, "capability", lambda index: (9, 0))
    with FakeTensorMode():
        yield lambda n, e: torch.empty(2, n, 3, HEADS, e, dtype=BF16, device="cuda")


def test_nothing_was_timed_yet_so_sdpa_runs_and_explain_says_so(on_h100):
    attention(on_h100(257, 64))
    (choice,) = (choice for choice in dispatch.explain() if choice.op == "attention")
    assert (choice.backend, choice.why) == ("torch", "the kernels were never timed on a GPU")


def test_once_timed_the_kernels_are_taken_for_1_and_64_m_tokens_of_width_64_on_sm90(on_h100, monkeypatch):
    monkeypatch.setattr(module, "tile", lambda *_: Tile(128, 64, warps=8, stages=3, measured=True))
    assert module.loses(on_h100(257, 64)) == ""
    assert module.loses(on_h100(65, 64)) == ""
    for n, e in [(256, 64), (250, 64), (257, 32), (257, 60), (257, 128)]:
        assert module.loses(on_h100(n, e)) == "the kernels are for heads of width 64 and 1 + 64 m tokens"
    monkeypatch.setattr(dispatch, "capability", lambda index: (8, 0))
    assert module.loses(on_h100(257, 64)) == "the kernels were timed on sm_90 only"


def test_what_the_kernels_cannot_take_they_refuse(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for qkv, why in [
        (torch.ones(1, 2, 3, 1, 130), "a head has 130 channels, 128 are the most"),
        (torch.ones(0, 2, 3, 1, 16), r"there is nothing in a shape of \(0, 2, 3, 1, 16\)"),
        (torch.ones(1, 2, 3, 1, 32)[..., ::2], "the last axis of qkv has stride 2, not 1"),
    ]:
        with dispatch.using("triton"), pytest.raises(ValueError, match=f"attention cannot run .*: {why}"):
            attention(qkv)
        assert attention(qkv).shape == (*qkv.shape[:2], *qkv.shape[3:])


@pytest.mark.compile
def test_the_torch_path_is_one_graph_too():
    qkv = packed(65, 64, F32, b=1)
    with torch.autocast("cpu", BF16):
        compiled = torch.compile(attention, fullgraph=True, backend="aot_eager")(qkv)
    torch.testing.assert_close(compiled, reference_attention(qkv))
