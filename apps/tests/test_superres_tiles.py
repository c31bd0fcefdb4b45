"""Tiles cover a picture evenly, and where they meet nothing shows."""

from itertools import pairwise

import pytest
import torch
from cf_apps.superres.tiles import AT_ONCE, Tiled, ramp, starts
from torch import Tensor

EXACT = 1e-12


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def t_of(x: Tensor) -> Tensor:
    return torch.full((len(x),), 0.3, dtype=x.dtype)


@pytest.mark.parametrize("tile", [8, 16, 24])
@pytest.mark.parametrize("overlap", [0, 1, 4, 7])
@pytest.mark.parametrize("align", [1, 2, 4])
def test_tiles_cover_an_axis_in_order_overlap_enough_and_start_in_phase(tile, overlap, align):
    overlap = min(overlap, tile - align)
    for extra in range(0, 80, align):
        length = tile + extra
        found = starts(length, tile, overlap, align)
        assert found[0] == 0
        assert found[-1] == length - tile
        assert all(place % align == 0 for place in found)
        gaps = [b - a for a, b in pairwise(found)]
        assert all(0 < gap <= tile - overlap for gap in gaps)
        assert not gaps or max(gaps) - min(gaps) <= align  # evenly


@pytest.mark.parametrize(
    ("length", "tile", "overlap", "align"),
    [(7, 8, 2, 1), (18, 8, 2, 4), (16, 6, 2, 4), (16, 8, 8, 1), (16, 8, -1, 1)],
)
def test_what_cannot_be_tiled_is_refused(length, tile, overlap, align):
    with pytest.raises(ValueError, match=r"tile"):
        starts(length, tile, overlap, align)


@pytest.mark.parametrize(("tile", "overlap"), [(8, 0), (8, 3), (9, 4), (5, 4)])
def test_weights_are_positive_symmetric_and_full_in_the_middle(tile, overlap):
    weights = ramp(tile, overlap)
    assert weights.min() > 0
    assert torch.equal(weights, weights.flip(0))
    assert weights[tile // 2] == pytest.approx(1.0 if 2 * overlap <= tile else weights.max().item())


POINTWISE = {
    "identity": lambda x, t, n: x,
    "sine": lambda x, t, n: torch.sin(3 * x) + t[:, None, None, None],
    "channels mixed": lambda x, t, n: torch.stack([x[:, 1] * x[:, 0], x[:, 2], x.sum(1)], 1),
}


@pytest.mark.parametrize("name", POINTWISE)
@pytest.mark.parametrize("size", [(8, 8), (20, 8), (12, 28), (40, 36)])
@pytest.mark.parametrize("overlap", [0, 2, 4])
def test_a_model_that_looks_at_each_pixel_alone_leaves_no_seam(name, size, overlap):
    x = noise(2, 3, *size)
    tiled = Tiled(POINTWISE[name], (8, 8), overlap, align=4)
    assert torch.allclose(tiled(x, t_of(x)), POINTWISE[name](x, t_of(x), None), atol=EXACT)


def test_a_picture_of_the_models_size_is_given_to_it_whole():
    x = noise(2, 3, 8, 8)
    seen = []
    out = Tiled(lambda x, t, n: seen.append(x) or 2 * x, (8, 8), 2)(x, t_of(x))
    assert len(seen) == 1
    assert torch.equal(seen[0], x)
    assert torch.equal(out, 2 * x)


def test_a_model_with_a_view_of_its_neighbours_is_exact_away_from_the_tiles_borders():
    """A 3 x 3 mean is wrong only in the outermost pixel of a tile; blended, those count little."""
    kernel = torch.full((1, 1, 3, 3), 1 / 9, dtype=torch.float64)
    mean = lambda x, t, n: torch.nn.functional.conv2d(x, kernel, padding=1)  # noqa: E731
    x = torch.ones(1, 1, 48, 48, dtype=torch.float64)
    errors = [
        (Tiled(mean, (16, 16), overlap)(x, t_of(x)) - 1)[..., 1:-1, 1:-1].abs().max() for overlap in (0, 8)
    ]
    assert errors[0] > 0.3  # hard tiles: a third of the mean is missing along each border
    assert errors[1] < 0.05


def test_blending_spreads_what_tiles_disagree_on_over_their_overlap():
    """A model that adds its own slope from -1 to 1 makes a jump of 2 between hard tiles, and none when blended."""
    slope = torch.linspace(-1, 1, 16, dtype=torch.float64)
    v = lambda x, t, n: x + slope  # noqa: E731
    x = torch.zeros(1, 1, 16, 80, dtype=torch.float64)
    hard, soft = (Tiled(v, (16, 16), overlap)(x, t_of(x)).diff(dim=-1).abs().max() for overlap in (0, 8))
    assert hard > 1.8
    assert soft < 0.3


def test_time_and_the_indicator_go_with_their_picture():
    x = torch.stack([torch.full((1, 20, 12), value, dtype=torch.float64) for value in (0.0, 10.0)])
    t, is_null = torch.tensor([0.25, 0.5], dtype=torch.float64), torch.tensor([False, True])

    def v(x: Tensor, t: Tensor, n: Tensor) -> Tensor:
        return x + t[:, None, None, None] + 100 * n[:, None, None, None]

    out = Tiled(v, (8, 8), 3)(x, t, is_null)
    assert torch.allclose(out[0], torch.full((1, 20, 12), 0.25, dtype=torch.float64), atol=EXACT)
    assert torch.allclose(out[1], torch.full((1, 20, 12), 110.5, dtype=torch.float64), atol=EXACT)


def test_more_tiles_than_go_through_the_model_at_once_are_all_counted():
    calls, shares = [], []
    tiled = Tiled(
        lambda x, t, n: calls.append(len(x)) or x,
        (4, 4),
        1,
        passed=lambda t, share: shares.append((t, share)),
    )
    x = noise(1, 1, 40, 40)
    assert torch.allclose(tiled(x, t_of(x)), x, atol=EXACT)
    assert sum(calls) == len(tiled.places(40, 40)) > AT_ONCE
    assert max(calls) == AT_ONCE
    assert shares == sorted(shares)
    assert shares[-1] == (0.3, 1.0)
