import itertools

import pytest
import torch
from cf_transformer import kernels
from cf_transformer.kernels import concat_norm, launch
from torch import Tensor

pytestmark = [pytest.mark.interpreter, pytest.mark.usefixtures("in_triton")]

SHAPES = [(1 + i % 2, n, d) for i, (n, d) in enumerate(itertools.product((1, 2, 15, 17, 33), (16, 48, 60)))]


def formula(maps: list[Tensor], gamma: Tensor, beta: Tensor) -> Tensor:
    whole = torch.cat(maps, dim=-1)
    centred = whole - whole.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gamma + beta


def make(generator, b=2, n=5, d=16, n_maps=3, dtype=torch.float64, vectors=None):
    """Maps of growing scale and offset, as in a residual stream; gamma, beta; the direction of the gradient."""
    wide = launch.accumulator(dtype)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    maps = [((1 + i) * normal(b, n, d) + i).to(dtype) for i in range(n_maps)]
    gamma, beta = (normal(vectors or b, 1, n_maps * d).to(wide) for _ in range(2))
    return maps, gamma, beta, normal(b, n, n_maps * d).to(dtype)


def evaluated(function, maps, gamma, beta, dy, dtype=None) -> list[Tensor]:
    """y, dgamma, dbeta, and the gradient of every map."""
    gamma, beta, *maps = (v.detach().to(dtype or v.dtype).requires_grad_() for v in (gamma, beta, *maps))
    y = function(maps, gamma, beta)
    return [y, *torch.autograd.grad(y, [gamma, beta, *maps], dy.to(y.dtype))]


def exact(maps, gamma, beta, dy) -> list[Tensor]:
    return evaluated(
        formula, *([v.clone() for v in maps], gamma.clone(), beta.clone(), dy), dtype=torch.float64
    )


@pytest.mark.parametrize(("b", "n", "d"), SHAPES)
def test_the_kernels_are_the_formula_at_every_shape(
    b, n, d, generator, guarded, in_nan, norm_error, tolerance
):
    maps, *rest = make(generator, b, n, d)
    problem = [in_nan(x) for x in maps], *(in_nan(v) for v in rest)
    for i, (a, e) in enumerate(
        zip(evaluated(kernels.concat_td_norm, *problem), exact(*problem), strict=True)
    ):
        assert norm_error(a, e) < tolerance[torch.float64], i


@pytest.mark.parametrize("n_maps", [1, 2, 7])
def test_any_number_of_maps(n_maps, generator, guarded, norm_error, tolerance):
    problem = make(generator, n_maps=n_maps)
    for a, e in zip(evaluated(kernels.concat_td_norm, *problem), exact(*problem), strict=True):
        assert norm_error(a, e) < tolerance[torch.float64]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_kernels_are_the_formula_in_every_precision(dtype, generator, guarded, norm_error, tolerance):
    problem = make(generator, n=17, d=60, dtype=dtype)
    ours = evaluated(kernels.concat_td_norm, *problem)
    assert [v.dtype for v in ours] == [dtype, *2 * [launch.accumulator(dtype)], *3 * [dtype]]
    for i, (a, e) in enumerate(zip(ours, exact(*problem), strict=True)):
        assert norm_error(a, e) < tolerance[dtype], i


def test_a_gain_for_all_samples_gets_the_sum_of_their_gradients(generator, norm_error, tolerance):
    problem = make(generator, vectors=1)
    for a, e in zip(evaluated(kernels.concat_td_norm, *problem), exact(*problem), strict=True):
        assert norm_error(a, e) < tolerance[torch.float64]


@pytest.mark.parametrize("programs", [1, 10**6])
def test_the_gradients_do_not_depend_on_how_many_programs_share_the_work(
    programs, generator, guarded, monkeypatch, norm_error, tolerance
):
    monkeypatch.setattr(launch, "PROGRAMS", programs)
    problem = make(generator, n=37, d=48)
    for a, e in zip(evaluated(kernels.concat_td_norm, *problem), exact(*problem), strict=True):
        assert norm_error(a, e) < tolerance[torch.float64]


def test_maps_may_each_lie_differently_in_memory(generator, norm_error, tolerance):
    """As in DiMR: the embedding is its own tensor, the other maps leave out the indicator's token."""
    maps, gamma, beta, dy = make(generator)
    with_token = [torch.cat([torch.full_like(x[:, :1], torch.nan), x], dim=1)[:, 1:] for x in maps[1:]]
    backwards = maps[0].transpose(0, 1).contiguous().transpose(0, 1)
    problem = [backwards, *with_token], gamma, beta, dy
    assert len({x.stride() for x in problem[0]}) == 2
    for a, e in zip(evaluated(kernels.concat_td_norm, *problem), exact(*problem), strict=True):
        assert norm_error(a, e) < tolerance[torch.float64]


def test_maps_that_begin_off_a_16_byte_boundary_are_read_right(generator, norm_error, tolerance):
    maps, *rest = make(generator, dtype=torch.float32)
    moved = [torch.cat([x.new_zeros(1), x.flatten()])[1:].view_as(x) for x in maps]
    assert concat_norm._arguments(moved)[1]["ALIGN"] == 4
    for a, e in zip(evaluated(kernels.concat_td_norm, moved, *rest), exact(moved, *rest), strict=True):
        assert norm_error(a, e) < tolerance[torch.float32]


def test_a_mean_of_a_thousand_deviations_costs_no_more_than_rounding(generator):
    """E[x^2] - mean^2 in fp32 would be off by some percent."""
    maps, gamma, beta, _ = make(generator, d=60, dtype=torch.float32)
    maps = [x + 3000 for x in maps]
    y = kernels.concat_td_norm(maps, gamma, beta)
    expected = formula([x.double() for x in maps], gamma.double(), beta.double())
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=1e-3)


def test_constant_maps_give_the_shift_and_a_finite_gradient():
    maps = [torch.full((1, 2, 16), 7.0, requires_grad=True) for _ in range(2)]
    gamma, beta = torch.ones(1, 1, 32), torch.arange(32.0).expand(1, 1, 32)
    y = kernels.concat_td_norm(maps, gamma, beta)
    assert torch.equal(y, beta.expand(1, 2, 32))
    y.square().sum().backward()
    assert all(x.grad.isfinite().all() for x in maps)


def test_only_gradients_that_are_wanted_are_given(generator, norm_error, tolerance):
    maps, gamma, beta, dy = make(generator)
    expected = exact(maps, gamma, beta, dy)[1:]
    every = [gamma, beta, *maps]
    for i, (one, e) in enumerate(zip(every, expected, strict=True)):
        fresh = [v.detach().requires_grad_(j == i) for j, v in enumerate(every)]
        kernels.concat_td_norm(fresh[2:], *fresh[:2]).backward(dy)
        assert [v.grad is not None for v in fresh] == [v is one for v in every]
        assert norm_error(fresh[i].grad, e) < tolerance[torch.float64]


def test_a_gradient_without_memory_of_its_own_is_read_right(generator, norm_error, tolerance):
    *problem, dy = make(generator)
    dy = torch.ones((), dtype=dy.dtype).expand_as(dy)
    for a, e in zip(evaluated(kernels.concat_td_norm, *problem, dy), exact(*problem, dy), strict=True):
        assert norm_error(a, e) < tolerance[torch.float64]


def test_the_gradients_are_finite_differences(generator):
    maps, gamma, beta, _ = make(generator, n=3, d=4)
    inputs = [v.requires_grad_() for v in (gamma, beta, *maps)]

    def f(gamma: Tensor, beta: Tensor, *maps: Tensor) -> Tensor:
        return kernels.concat_td_norm(maps, gamma, beta)

    assert torch.autograd.gradcheck(f, inputs, fast_mode=True)


def test_what_the_kernels_cannot_take_is_named(generator):
    maps, gamma, beta, _ = make(generator)
    for arguments, complaint in [
        (([*maps[:2], maps[2][:, :4]], gamma, beta), r"maps differ in shape: .*\(2, 4, 16\)"),
        (([*maps[:2], maps[2].float()], gamma, beta), "maps differ in precision or device"),
        ((maps[:2], gamma, beta), r"gamma has shape \(2, 1, 48\), not \(2 or 1, 1, 32\)"),
        ((maps, gamma, beta[:, 0]), r"beta has shape \(2, 48\), not \(2 or 1, 1, 48\)"),
        (
            ([x[..., ::2] for x in maps], gamma[..., :24], beta[..., :24]),
            "the last axis of map 0 has stride 2",
        ),
        (([x[:, :0] for x in maps], gamma, beta), r"there is nothing in maps of shape \(2, 0, 16\)"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            kernels.concat_td_norm(*arguments)
