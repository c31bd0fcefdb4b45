import pytest
import torch
from cf_transformer import kernels
from cf_transformer.kernels import time_lerp
from cf_transformer.kernels.pointers import KEPT, PointerTables, common_alignment
from torch import Tensor

pytestmark = [pytest.mark.interpreter, pytest.mark.usefixtures("in_triton")]

# (m, d) of the sets of one model: one element; odd; one tile; many tiles, the last one cut
MODELS = [[(1, 1)], [(3, 7)], [(2, 16), (1, 48), (5, 60)], [(1, 128), (9, 61), (1, 3)]]


def formula(leaves: list[tuple[Tensor, ...]], t: Tensor) -> list[Tensor]:
    """By the letter: c = 1 - 2 t, s = 1 / (1 + exp(-(1 + w) c - b)), gamma = s param0 + (1 - s) param1."""
    gammas = []
    for param0, param1, w, b in leaves:
        c = 1 - 2 * t[None, :, None, None]
        s = 1 / (1 + torch.exp(-((1 + w[:, None, None]) * c + b[:, None, None])))
        gammas.append(s * param0[:, None, None] + (1 - s) * param1[:, None, None])
    return gammas


def make(generator, sets=((2, 16), (3, 7)), b=3, dtype=torch.float64):
    """Leaves of the sets, t in fp32 at least, and a direction of the gradient for every set."""
    leaves = [
        tuple(torch.randn(m, d, generator=generator, dtype=torch.float64).to(dtype) for _ in range(4))
        for m, d in sets
    ]
    wide = torch.promote_types(dtype, torch.float32)
    t = torch.rand(b, generator=generator, dtype=torch.float64).to(wide)
    directions = [torch.randn(m, b, 1, d, generator=generator, dtype=torch.float64).to(wide) for m, d in sets]
    return leaves, t, directions


def evaluated(function, leaves, t, directions, dtype=None) -> list[Tensor]:
    """Every gamma, the gradient of every leaf, and that of t."""
    leaves = [tuple(leaf.detach().to(dtype, copy=True).requires_grad_() for leaf in one) for one in leaves]
    t = t.detach().to(dtype, copy=True).requires_grad_()
    gammas = function(leaves, t)
    inputs = [*(leaf for one in leaves for leaf in one), t]
    directions = [direction.to(gamma.dtype) for direction, gamma in zip(directions, gammas, strict=True)]
    return [*gammas, *torch.autograd.grad(gammas, inputs, directions)]


@pytest.mark.parametrize("b", [1, 2, 17])
@pytest.mark.parametrize("sets", MODELS, ids=str)
def test_the_kernels_are_the_formula_for_every_set(sets, b, generator, guarded, norm_error, tolerance):
    problem = make(generator, sets, b)
    ours, exact = evaluated(kernels.time_lerps, *problem), evaluated(formula, *problem)
    for i, (a, e) in enumerate(zip(ours, exact, strict=True)):
        assert norm_error(a, e) < tolerance[torch.float64], i


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_arithmetic_is_fp32_at_least(dtype, generator, guarded, norm_error, tolerance):
    problem = make(generator, [(2, 60), (3, 7)], 17, dtype)
    ours, exact = evaluated(kernels.time_lerps, *problem), evaluated(formula, *problem, dtype=torch.float64)
    *gammas, dt = ours[:2], ours[-1]
    assert all(gamma.dtype == torch.float32 for gamma in gammas[0])
    assert dt.dtype == torch.float32
    assert all(grad.dtype == dtype for grad in ours[2:-1])
    for i, (a, e) in enumerate(zip(ours, exact, strict=True)):
        assert norm_error(a, e) < (
            tolerance[dtype] if 2 <= i < len(ours) - 1 else tolerance[torch.float32]
        ), i


def test_the_tiles_of_a_set_may_be_many(generator, guarded, norm_error, tolerance):
    problem = make(generator, [(3, 700), (1, 1300)], 5)
    ours, exact = evaluated(kernels.time_lerps, *problem), evaluated(formula, *problem)
    for a, e in zip(ours, exact, strict=True):
        assert norm_error(a, e) < tolerance[torch.float64]


def test_leaves_may_begin_anywhere_in_memory(generator, norm_error, tolerance):
    leaves, t, _ = make(generator, [(2, 16)])
    room = torch.full((4, 33), torch.nan, dtype=torch.float64)
    (one,) = leaves
    odd = tuple(row[1:].view(2, 16).copy_(leaf) for row, leaf in zip(room, one, strict=True))
    assert common_alignment(leaf.data_ptr() for leaf in odd) == 8
    (ours,), (exact,) = kernels.time_lerps([odd], t), formula(leaves, t)
    assert norm_error(ours, exact) < tolerance[torch.float64]


def test_a_time_shared_by_all_samples_is_read_by_its_stride(generator, norm_error, tolerance):
    leaves, t, _ = make(generator)
    for ours, exact in zip(
        kernels.time_lerps(leaves, t[:1].expand(3)), formula(leaves, t[:1].expand(3)), strict=True
    ):
        assert norm_error(ours, exact) < tolerance[torch.float64]


def test_param0_equal_to_param1_is_gamma_at_every_time(generator):
    leaves, t, _ = make(generator)
    leaves = [(param0, param0.clone(), w, b) for param0, _, w, b in leaves]
    for gamma, (param0, *_) in zip(kernels.time_lerps(leaves, t), leaves, strict=True):
        assert torch.equal(gamma, param0[:, None, None].expand_as(gamma))


def test_a_sharp_switch_does_not_overflow():
    w = torch.full((1, 2), 1e4)
    param0, param1, b = torch.full((1, 2), 3.0), torch.full((1, 2), 5.0), torch.zeros(1, 2)
    (gamma,) = kernels.time_lerps([(param0, param1, w, b)], torch.tensor([0.0, 0.5, 1.0]))
    assert gamma[0, :, 0, 0].tolist() == [3.0, 4.0, 5.0]


def test_only_gradients_that_are_wanted_are_given(generator, norm_error, tolerance):
    leaves, t, directions = make(generator)
    exact = evaluated(formula, leaves, t, directions)
    w = leaves[1][2].requires_grad_()
    (grad,) = torch.autograd.grad(kernels.time_lerps(leaves, t), [w], directions)
    assert norm_error(grad, exact[2 + 4 + 2]) < tolerance[torch.float64]
    t.requires_grad_()
    (grad,) = torch.autograd.grad(kernels.time_lerps(leaves, t), [t], directions)
    assert norm_error(grad, exact[-1]) < tolerance[torch.float64]


def test_a_set_whose_gamma_goes_unused_gets_zeros(generator, norm_error, tolerance):
    leaves, t, directions = make(generator)
    exact = evaluated(formula, leaves, t, directions)
    every = [leaf.requires_grad_() for one in leaves for leaf in one]
    grads = torch.autograd.grad(kernels.time_lerps(leaves, t)[1], every, directions[1])
    assert not any(grad.any() for grad in grads[:4])
    for grad, expected in zip(grads[4:], exact[6:10], strict=True):
        assert norm_error(grad, expected) < tolerance[torch.float64]


def test_the_gradients_are_finite_differences(generator):
    leaves, t, _ = make(generator, [(1, 3), (2, 2)])
    every = [leaf.requires_grad_() for one in leaves for leaf in one]

    def f(t: Tensor, *every: Tensor) -> list[Tensor]:
        return kernels.time_lerps([every[:4], every[4:]], t)

    assert torch.autograd.gradcheck(f, [t.requires_grad_(), *every], fast_mode=True)


def test_steady_state_builds_no_table(generator, monkeypatch):
    tables = PointerTables(time_lerp._rows)
    monkeypatch.setattr(time_lerp, "_tables", tables)
    leaves, t, _ = make(generator)
    first = kernels.time_lerps(leaves, t)
    monkeypatch.setattr(tables, "_build", None)
    for again, once in zip(kernels.time_lerps(leaves, t), first, strict=True):
        assert torch.equal(again, once)


def test_moved_leaves_are_read_where_they_are_now(generator):
    leaves, t, _ = make(generator)
    before = kernels.time_lerps(leaves, t)
    moved = [(2 * param0, 2 * param1, w, b) for param0, param1, w, b in leaves]
    for after, once in zip(kernels.time_lerps(moved, t), before, strict=True):
        torch.testing.assert_close(after, 2 * once)


def test_tables_are_of_their_facts_and_the_oldest_go_first():
    built = []

    def build(*facts: int) -> list[list[int]]:
        built.append(facts)
        return [list(facts)]

    tables, device = PointerTables(build), torch.device("cpu")
    assert tables.on(device, 1, 2).tolist() == [[1, 2]]
    for i in range(KEPT - 1):
        tables.on(device, i, 0)
    assert tables.on(device, 1, 2).tolist() == [[1, 2]]  # still there, and now the youngest
    tables.on(device, -1, 0)  # one too many: (0, 0) has to go
    assert len(built) == KEPT + 1
    tables.on(device, 1, 2)
    assert len(built) == KEPT + 1
    tables.on(device, 0, 0)
    assert len(built) == KEPT + 2


def test_the_alignment_is_the_power_of_two_that_all_share():
    assert [common_alignment(numbers) for numbers in ([32, 48], [32, 8], [12], [7, 16], [0, 64])] == [
        16,
        8,
        4,
        1,
        16,
    ]


def test_what_the_kernels_cannot_take_is_named(generator):
    (one, other), t, _ = make(generator)
    for leaves, complaint in [
        ([], "there is no set of leaves"),
        ([(*one[:3], other[3])], r"leaves of one set differ in shape: \(2, 16\), .*\(3, 7\)"),
        ([one, tuple(leaf.float() for leaf in other)], "precision: torch.float32, torch.float64"),
        ([tuple(leaf.T for leaf in one)], "a leaf is not contiguous"),
        ([tuple(leaf[:0] for leaf in one)], "there is nothing in t or in a leaf"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            kernels.time_lerps(leaves, t)
