import itertools

import pytest
import torch
from cf_transformer import kernels
from cf_transformer.kernels import launch, reference
from torch import Tensor

pytestmark = [pytest.mark.interpreter, pytest.mark.usefixtures("in_triton")]

SHAPES = [(1 + i % 2, n, d) for i, (n, d) in enumerate(itertools.product((1, 2, 15, 17, 33), (16, 48, 60)))]
NORMS = ["rms", "layer"]
NAMES = ["y", "s", "dx", "dr", "dgamma", "dbeta"]


def formula(s: Tensor, gamma: Tensor, beta: Tensor | None, norm: str) -> Tensor:
    """s / (rms + 1e-8), or (s - mean) / sqrt(variance + 1e-5), by the letter."""
    if norm == "rms":
        normed = s / (s.square().mean(-1, keepdim=True).sqrt() + 1e-8)
    else:
        centred = s - s.mean(-1, keepdim=True)
        normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return normed * gamma + (0 if beta is None else beta)


def make(generator, b=2, n=5, d=16, dtype=torch.float64, vectors=None):
    """x, r, gamma, beta, and the directions of both gradients; gain and shift in fp32, in fp64 for fp64."""
    vectors, wide = vectors or b, launch.accumulator(dtype)
    tokens = [torch.randn(b, n, d, generator=generator, dtype=torch.float64).to(dtype) for _ in range(4)]
    gains = [torch.randn(vectors, 1, d, generator=generator, dtype=torch.float64).to(wide) for _ in range(2)]
    return *tokens[:2], *gains, *tokens[2:]


def by_kernel(x, r, gamma, beta, dy, ds, norm):
    leaves = [leaf.detach().requires_grad_() for leaf in (x, r, gamma, beta)]
    y, s = kernels.add_td_norm(*leaves, norm=norm)
    return y, s, *torch.autograd.grad([y, s], leaves, [dy, ds])


def by_formula(x, r, gamma, beta, dy, ds, norm):
    """In fp64, of the sum as it is stored."""
    s = (x.double() + r.double()).to(x.dtype)
    s, gamma, beta = (v.detach().to(torch.float64, copy=True).requires_grad_() for v in (s, gamma, beta))
    y = formula(s, gamma, beta, norm)
    ds_all, *rest = torch.autograd.grad([y, 1 * s], [s, gamma, beta], [dy.double(), ds.double()])
    return y, s, ds_all, ds_all, *rest


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("b", "n", "d"), SHAPES)
def test_the_kernels_are_the_formula_at_every_shape(
    b, n, d, norm, generator, guarded, in_nan, norm_error, tolerance
):
    problem = [in_nan(v) for v in make(generator, b, n, d)]
    for name, ours, exact in zip(NAMES, by_kernel(*problem, norm), by_formula(*problem, norm), strict=True):
        assert norm_error(ours, exact) < tolerance[torch.float64], name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("norm", NORMS)
def test_the_kernels_are_the_formula_in_every_precision(
    dtype, norm, generator, guarded, norm_error, tolerance
):
    problem = make(generator, n=17, d=60, dtype=dtype)
    for name, ours, exact in zip(NAMES, by_kernel(*problem, norm), by_formula(*problem, norm), strict=True):
        assert ours.dtype == (launch.accumulator(dtype) if name in ("dgamma", "dbeta") else dtype)
        assert norm_error(ours, exact) < tolerance[dtype], name


@pytest.mark.parametrize("norm", NORMS)
def test_a_gain_for_all_samples_gets_the_sum_of_their_gradients(norm, generator, norm_error, tolerance):
    problem = make(generator, vectors=1)
    for name, ours, exact in zip(NAMES, by_kernel(*problem, norm), by_formula(*problem, norm), strict=True):
        assert norm_error(ours, exact) < tolerance[torch.float64], name


@pytest.mark.parametrize("programs", [1, 3, 10**6])
def test_the_gradients_do_not_depend_on_how_many_programs_share_the_work(
    programs, generator, guarded, monkeypatch, norm_error, tolerance
):
    monkeypatch.setattr(launch, "PROGRAMS", programs)
    problem = make(generator, n=37, d=48)  # 16 rows to a block, so up to three blocks in a chunk
    for name, ours, exact in zip(
        NAMES, by_kernel(*problem, "layer"), by_formula(*problem, "layer"), strict=True
    ):
        assert norm_error(ours, exact) < tolerance[torch.float64], name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_normalised_is_the_stored_sum(dtype, generator):
    x, r, gamma, beta, *_ = make(generator, dtype=dtype)
    y, s = kernels.add_td_norm(x, r, gamma, beta, norm="layer")
    assert torch.equal(s, (x.double() + r.double()).to(dtype))
    assert torch.equal(y, kernels.add_td_norm(s, None, gamma, beta, norm="layer")[0])


@pytest.mark.parametrize("norm", NORMS)
def test_without_residual_and_shift_the_sum_is_x_itself_with_both_gradients(
    norm, generator, guarded, norm_error, tolerance
):
    x, _, gamma, _, dy, ds = make(generator)
    ours, exact = ([v.clone().requires_grad_() for v in (x, gamma)] for _ in range(2))
    y, s = kernels.add_td_norm(ours[0], None, ours[1], None, norm=norm)
    assert s is ours[0]
    expected = formula(exact[0], exact[1], None, norm)
    assert norm_error(y, expected) < tolerance[torch.float64]
    torch.autograd.backward([y, 1 * s], [dy, ds])
    torch.autograd.backward([expected, 1 * exact[0]], [dy, ds])
    for a, b in zip(ours, exact, strict=True):
        assert norm_error(a.grad, b.grad) < tolerance[torch.float64]


def test_a_residual_of_another_precision_gets_its_gradient_in_it(generator, norm_error, tolerance):
    x, r, *rest = make(generator, dtype=torch.float32)
    grads = by_kernel(x, r.bfloat16(), *rest, "rms")
    exact = by_formula(x, r.bfloat16(), *rest, "rms")
    assert [grad.dtype for grad in grads[:4]] == [*3 * [torch.float32], torch.bfloat16]
    assert norm_error(grads[2], exact[2]) < tolerance[torch.float32]
    assert norm_error(grads[3], exact[3]) < tolerance[torch.bfloat16]


@pytest.mark.parametrize(("norm", "steepness"), [("rms", 1e8), ("layer", 1e5**0.5)])
def test_a_token_of_zeros_gives_the_shift_and_the_slope_at_zero(norm, steepness, generator, tolerance):
    x, _, gamma, beta, dy, _ = make(generator)
    x[1, 3] = 0
    x.requires_grad_()
    y, _ = kernels.add_td_norm(x, None, gamma, beta, norm=norm)
    (dx,) = torch.autograd.grad(y, x, dy)
    g = (dy * gamma)[1, 3]
    g = g if norm == "rms" else g - g.mean()
    assert torch.equal(y[1, 3], beta[1, 0])
    torch.testing.assert_close(dx[1, 3], g * steepness, rtol=tolerance[torch.float64], atol=0)


def test_a_mean_of_a_thousand_deviations_costs_the_layer_norm_no_more_than_rounding(generator):
    """E[x^2] - mean^2 in fp32 would be off by some percent."""
    x, _, gamma, beta, *_ = make(generator, d=60, dtype=torch.float32)
    y, _ = kernels.add_td_norm(1000 + x, None, gamma, beta, norm="layer")
    expected = formula((1000 + x).double(), gamma.double(), beta.double(), "layer")
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=1e-3)


def test_only_gradients_that_are_wanted_are_given(generator, norm_error, tolerance):
    problem = make(generator)
    exact = by_formula(*problem, "layer")[2:]
    for wanted in itertools.product((False, True), repeat=4):
        if not any(wanted):
            continue
        leaves = [leaf.clone().requires_grad_(want) for leaf, want in zip(problem[:4], wanted, strict=True)]
        y, s = kernels.add_td_norm(*leaves, norm="layer")
        torch.autograd.backward(
            [y, s] if s.requires_grad else [y], problem[4:] if s.requires_grad else problem[4:5]
        )
        for leaf, want, grad in zip(leaves, wanted, exact, strict=True):
            assert (leaf.grad is not None) == want
            assert not want or norm_error(leaf.grad, grad) < tolerance[torch.float64]


def test_either_result_may_go_unused(generator, norm_error, tolerance):
    *leaves, dy, ds = make(generator)
    for leaf in leaves:
        leaf.requires_grad_()
    _, s = kernels.add_td_norm(*leaves, norm="rms")
    grads = torch.autograd.grad(s, leaves, ds, allow_unused=True)
    assert torch.equal(grads[0], ds)
    assert torch.equal(grads[1], ds)
    assert grads[2] is grads[3] is None
    y, _ = kernels.add_td_norm(*leaves, norm="rms")
    expected = by_formula(*leaves, dy, torch.zeros_like(ds), "rms")[2:]
    for grad, exact in zip(torch.autograd.grad(y, leaves, dy), expected, strict=True):
        assert norm_error(grad, exact) < tolerance[torch.float64]


def test_a_gradient_without_memory_of_its_own_is_read_right(generator, norm_error, tolerance):
    *leaves, dy, ds = make(generator)
    one = torch.ones((), dtype=dy.dtype)
    ours = by_kernel(*leaves, one.expand_as(dy), one.expand_as(ds), "rms")
    exact = by_formula(*leaves, torch.ones_like(dy), torch.ones_like(ds), "rms")
    for a, b in zip(ours, exact, strict=True):
        assert norm_error(a, b) < tolerance[torch.float64]


@pytest.mark.parametrize("norm", NORMS)
def test_the_gradients_are_finite_differences(norm, generator):
    leaves = [leaf.requires_grad_() for leaf in make(generator, b=2, n=3, d=8)[:4]]
    assert torch.autograd.gradcheck(lambda *v: kernels.add_td_norm(*v, norm=norm), leaves, fast_mode=True)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda x, g: (x[..., ::2], g[..., ::2]), "the last axis of x has stride 2, not 1"),
        (lambda x, g: (x[:, :0], g), r"there is nothing in a shape of \(2, 0, 16\)"),
        (lambda x, g: (x.repeat(1, 1, 513), g.repeat(1, 1, 513)), "8208 channels .* 8192 are the most"),
    ],
    ids=["strided", "empty", "wide"],
)
def test_what_the_kernels_cannot_take_is_named_and_left_to_torch_by_mode_auto(spoil, complaint, generator):
    x, _, gamma, *_ = make(generator)
    x, gamma = spoil(x, gamma)
    with pytest.raises(ValueError, match=complaint):
        kernels.add_td_norm(x, None, gamma, None, norm="rms")
    with kernels.using("auto"):
        y, _ = kernels.add_td_norm(x, None, gamma, None, norm="rms")
    assert torch.equal(y, reference.add_td_norm(x, None, gamma, None, norm="rms")[0])


def test_shapes_that_do_not_fit_each_other_are_not_read(generator):
    x, r, gamma, *_ = make(generator)
    with pytest.raises(ValueError, match=r"gamma has shape \(2, 1, 15\), not \(2 or 1, 1, 16\)"):
        kernels.add_td_norm(x, r, gamma[..., :15], None, norm="rms")
    with pytest.raises(ValueError, match=r"beta has shape \(2, 16\), not \(2 or 1, 1, 16\)"):
        kernels.add_td_norm(x, r, gamma, gamma[:, 0], norm="rms")
    with pytest.raises(ValueError, match=r"r has shape \(1, 5, 16\), and x \(2, 5, 16\)"):
        kernels.add_td_norm(x, r[:1], gamma, None, norm="rms")
