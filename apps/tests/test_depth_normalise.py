"""Marigold's normalisation and the filling of holes, against numpy and by hand."""

import numpy as np
import pytest
import torch
from cf_apps.data.depth_pairs import DepthArrays
from cf_apps.data.depth_sets.mixed import Mixed
from cf_apps.data.depth_sets.normalise import affine_normalised, filled, percentiles


def arrays(n: int) -> DepthArrays:
    g = torch.Generator().manual_seed(n)
    images = torch.randint(0, 256, (n, 3, 4, 4), generator=g, dtype=torch.uint8)
    return DepthArrays(images, torch.rand(n, 4, 4, generator=g), torch.ones(n, 4, 4, dtype=torch.bool), "toy")


def maps(n: int = 4, h: int = 13, w: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(2)
    return 0.5 + 40 * torch.rand(n, h, w, generator=g) ** 3, torch.rand(n, h, w, generator=g) < 0.6


def test_percentiles_are_numpy_s_over_the_readings():
    depth, valid = maps()
    near, far = percentiles(depth, valid)
    for i in range(len(depth)):
        expected = np.percentile(depth[i][valid[i]].double().numpy(), [2, 98])
        np.testing.assert_allclose([near[i], far[i]], expected, rtol=1e-6)


def test_affine_normalisation_puts_the_percentiles_at_the_ends_and_clips_beyond():
    depth, valid = maps()
    near, far = percentiles(depth, valid)
    scaled = affine_normalised(depth, valid)
    inside = (depth > near[:, None, None]) & (depth < far[:, None, None])
    plain = (depth - near[:, None, None]) / (far - near)[:, None, None] * 2 - 1
    torch.testing.assert_close(scaled[inside], plain[inside])
    assert bool((scaled[depth <= near[:, None, None]] == -1).all())
    assert bool((scaled[depth >= far[:, None, None]] == 1).all())


def test_affine_normalisation_forgets_scale_and_shift_and_nothing_else():
    depth, valid = maps()
    torch.testing.assert_close(
        affine_normalised(3.5 * depth + 7, valid), affine_normalised(depth, valid), atol=1e-5, rtol=0
    )
    assert not torch.allclose(affine_normalised(1 / depth, valid), affine_normalised(depth, valid), atol=0.1)


def test_values_without_a_reading_do_not_move_the_percentiles():
    depth, valid = maps()
    wild = torch.where(valid, depth, 1e6)
    assert affine_normalised(wild, valid)[valid].equal(affine_normalised(depth, valid)[valid])


def test_a_flat_wall_and_a_map_without_readings_become_zero():
    flat = torch.full((2, 4, 5), 3.0)
    valid = torch.ones(2, 4, 5, dtype=torch.bool)
    valid[1] = False
    scaled = affine_normalised(flat, valid)
    assert bool((scaled[0] == 0).all())
    assert bool(scaled.isfinite().all())


@pytest.mark.parametrize(("h", "w"), [(8, 8), (5, 7), (1, 6), (13, 2)])
def test_filling_keeps_readings_and_gives_each_hole_the_mean_of_its_smallest_cell_with_readings(h, w):
    g = torch.Generator().manual_seed(h)
    depth, valid = torch.rand(3, h, w, generator=g), torch.rand(3, h, w, generator=g) < 0.15
    valid[:, 0, 0] = True
    whole = filled(torch.where(valid, depth, float("nan")), valid)
    for b in range(3):
        for i in range(h):
            for j in range(w):
                side = 1
                while not valid[b, i // side * side :, j // side * side :][:side, :side].any():
                    side *= 2
                top, left = i // side * side, j // side * side
                cell = (b, slice(top, top + side), slice(left, left + side))
                expected = depth[cell][valid[cell]].mean()
                assert abs(whole[b, i, j] - expected) < 1e-6
    assert whole[valid].equal(depth[valid])


def test_a_map_without_any_reading_is_filled_with_zero():
    assert bool((filled(torch.full((1, 4, 6), 7.0), torch.zeros(1, 4, 6, dtype=torch.bool)) == 0).all())


def test_a_mixture_gives_every_set_its_share_and_every_pair_its_turn():
    large, small = arrays(25), arrays(2)
    mixed = Mixed((large, small), (9, 1), "both")
    assert len(mixed) == 30  # three rounds of ten: 27 of the 25, 3 of the 2
    batch = mixed.batch(torch.arange(30))
    is_small = torch.tensor([i % 10 == 9 for i in range(30)])
    assert batch.images[~is_small].equal(large.images[torch.arange(27) % 25])
    assert batch.depth[is_small].equal(small.depth[torch.tensor([0, 1, 0])])
    assert mixed.pair(19).image.equal(small.images[1])
    with pytest.raises(ValueError, match="need as many positive shares"):
        Mixed((large, small), (1, 0), "both")
