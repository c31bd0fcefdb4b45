import pytest
import torch
import torch.nn.functional as F
from cf_transformer import Cascade
from cf_transformer.position import pixel_shuffle

MAPS, D_LOW, D_HIGH, RATIO, GRID = 4, 6, 5, 2, (3, 5)


def naive(cascade: Cascade, maps: list[torch.Tensor], t: torch.Tensor) -> torch.Tensor:
    """As the papers draw it: concatenate every map, TD-LN over all channels, Linear, shuffle, TD-LN."""
    x = torch.cat(maps, dim=-1)
    gamma, beta = (torch.cat(list(leaf(t)), dim=-1) for leaf in (cascade.gain, cascade.shift))
    x = F.layer_norm(x, x.shape[-1:], eps=1e-5) * gamma + beta
    return cascade.norm(pixel_shuffle(cascade.project(x), cascade.ratio, cascade.grid), t)


def make(generator: torch.Generator, ratio: int = RATIO, offset: float = 0.0):
    cascade = Cascade(MAPS, D_LOW, D_HIGH, ratio, GRID)
    n = GRID[0] * GRID[1]
    scales = torch.tensor([0.1, 1.0, 3.0, 10.0])  # later maps are larger, as in a residual stream
    maps = [scale * torch.randn(2, n, D_LOW, generator=generator) + offset for scale in scales]
    return cascade, maps, torch.rand(2, generator=generator)


@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_the_streamed_sum_is_the_concatenation(ratio, shaken, generator):
    cascade, maps, t = make(generator, ratio)
    cascade, maps, t = shaken(cascade.double()), [m.double() for m in maps], t.double()
    last, hand_over = cascade(iter(maps), t)
    assert last is maps[-1]
    torch.testing.assert_close(hand_over, naive(cascade, maps, t), rtol=1e-10, atol=1e-12)


def test_the_streamed_sum_has_the_gradients_of_the_concatenation(shaken, generator):
    cascade, maps, t = make(generator)
    cascade, t = shaken(cascade.double()), t.double()
    maps = [m.double().requires_grad_() for m in maps]
    inputs = [*maps, *cascade.parameters()]
    direction = torch.randn(2, RATIO**2 * 15, D_HIGH, generator=generator, dtype=torch.float64)
    streamed = torch.autograd.grad((cascade(maps, t)[1] * direction).sum(), inputs)
    whole = torch.autograd.grad((naive(cascade, maps, t) * direction).sum(), inputs)
    for a, b in zip(streamed, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_the_streamed_sum_has_derivatives_of_every_kind(shaken, generator):
    """Forward mode, a batch of backward passes, and a backward pass of the backward pass."""
    cascade, maps, t = make(generator)
    cascade, t = shaken(cascade.double()), t.double()
    x = torch.stack(maps).double()
    along = torch.randn(x.shape, generator=generator, dtype=torch.float64)

    def streamed(x):
        return cascade(x.unbind(), t)[1]

    def whole(x):
        return naive(cascade, list(x.unbind()), t)

    for f in (lambda it: torch.func.jvp(it, (x,), (along,))[1], lambda it: torch.func.jacrev(it)(x)):
        torch.testing.assert_close(f(streamed), f(whole), rtol=1e-9, atol=1e-11)

    def curvature(f):
        leaf = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(f(leaf).square().sum(), leaf, create_graph=True)
        return torch.autograd.grad((slope * along).sum(), [leaf, cascade.project.weight])

    for a, b in zip(curvature(streamed), curvature(whole), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


def test_streaming_keeps_no_second_copy_of_the_maps(generator, kept_by):
    n_maps, d, grid = 17, 32, (8, 8)
    cascade, t = Cascade(n_maps, d, 8, 1, grid), torch.rand(3, generator=generator)
    maps = [torch.randn(3, 64, d, generator=generator, requires_grad=True) for _ in range(n_maps)]
    alive = [*maps, *cascade.parameters()]
    concatenation = sum(x.nbytes for x in maps)
    assert kept_by(lambda: naive(cascade, maps, t), alive) > 2 * concatenation
    assert kept_by(lambda: cascade(maps, t)[1], alive) < 0.5 * concatenation


def test_a_common_offset_costs_no_precision_that_matters(shaken, generator):
    """In fp32, with a mean of 30 deviations, far beyond what a residual stream shows."""
    cascade, maps, t = make(generator, offset=150.0)
    shaken(cascade)
    streamed = cascade(maps, t)[1]
    exact = naive(cascade.double(), [m.double() for m in maps], t.double())
    torch.testing.assert_close(streamed.double(), exact, rtol=0, atol=1e-3)


def test_bf16_autocast_is_as_close_as_the_concatenation_under_autocast(shaken, generator):
    cascade, maps, t = make(generator)
    shaken(cascade)
    exact = naive(cascade, maps, t)
    with torch.autocast("cpu", torch.bfloat16):
        streamed, whole = cascade(maps, t)[1], naive(cascade, maps, t)
    assert streamed.dtype == torch.float32
    assert (streamed - exact).norm() < 1.5 * (whole - exact).norm()


@pytest.mark.parametrize(
    "value", [1e3, 1234.567, 33.3, 7777.7]
)  # whose squares are rounded, one way or the other
def test_a_constant_map_is_no_division_by_zero(value):
    cascade = Cascade(2, D_LOW, D_HIGH, 1, GRID)
    maps = [torch.full((1, 15, D_LOW), value, requires_grad=True) for _ in range(2)]
    hand_over = cascade(maps, torch.rand(1))[1]
    hand_over.sum().backward()
    assert hand_over.isfinite().all()
    assert maps[0].grad.isfinite().all()


@pytest.mark.parametrize(("m", "channel"), [(0, 2), (3, 5)])
def test_columns_of_the_projection_are_map_times_width_plus_channel(m, channel):
    cascade = Cascade(MAPS, D_LOW, 1, 1, GRID)
    with torch.no_grad():
        cascade.project.weight.zero_()
        cascade.project.weight[0, m * D_LOW + channel] = 1.0
    cascade.norm = torch.nn.Identity()
    cascade.norm.forward = lambda x, t: x
    maps = [torch.randn(1, 15, D_LOW) for _ in range(MAPS)]
    whole = torch.cat(maps, dim=-1)
    expected = F.layer_norm(whole, whole.shape[-1:])[..., m * D_LOW + channel]
    with torch.no_grad():
        cascade.project.bias.zero_()
    torch.testing.assert_close(cascade(maps, torch.rand(1))[1][..., 0], expected)


def test_rows_of_the_projection_are_row_column_channel():
    cascade = Cascade(1, D_LOW, 2, 2, (1, 1))
    cascade.norm = torch.nn.Identity()
    cascade.norm.forward = lambda x, t: x
    with torch.no_grad():
        cascade.project.weight.zero_()
        cascade.project.bias.copy_(torch.arange(8.0))
    hand_over = cascade([torch.randn(1, 1, D_LOW)], torch.rand(1))[1]
    assert torch.equal(hand_over[0], torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]]))


def test_a_missing_or_surplus_map_is_an_error(generator):
    cascade, maps, t = make(generator)
    for wrong in (maps[:-1], [*maps, maps[0]]):
        with pytest.raises(ValueError, match="zip"):
            cascade(wrong, t)
