import math

import pytest
import torch
from cf_transformer.sinusoid import grid_positions, time_features


def test_time_features_are_128_cosines_then_128_sines_of_falling_frequency():
    t = torch.tensor([0.0, 0.37, 1.0], dtype=torch.float64)
    features = time_features(t, 256, scale=1000.0)
    assert features.shape == (3, 256)
    for row, moment in enumerate(t.tolist()):
        for i in (0, 1, 64, 127):
            angle = 1000.0 * moment / 10_000 ** (i / 128)
            assert features[row, i].item() == pytest.approx(math.cos(angle), abs=1e-11)
            assert features[row, 128 + i].item() == pytest.approx(math.sin(angle), abs=1e-11)


def effective_rank(x: torch.Tensor) -> float:
    """(sum of the variances)^2 / sum of their squares, along the principal directions."""
    variances = torch.linalg.svdvals(x - x.mean(0)).square()
    return (variances.sum().square() / variances.square().sum()).item()


@pytest.mark.parametrize(("scale", "rank", "largest"), [(1.0, 1.02, 0.99), (1000.0, 22.9, 0.14)])
def test_only_scaled_times_spread_over_many_directions(scale, rank, largest):
    """Of 51 equally spaced times; unscaled, 99 % of the variance lie in one direction."""
    features = time_features(torch.linspace(0, 1, 51, dtype=torch.float64), 256, scale)
    assert effective_rank(features) == pytest.approx(rank, abs=0.05)
    variances = torch.linalg.svdvals(features - features.mean(0)).square()
    assert (variances[0] / variances.sum()).item() == pytest.approx(largest, abs=0.005)


def test_time_is_not_rounded_to_the_precision_it_arrives_in():
    t = torch.tensor([0.5, 0.75], dtype=torch.bfloat16)  # exact in bf16, but 1000 t f is not
    features = time_features(t, 256, 1000.0)
    assert features.dtype == torch.float32
    assert torch.equal(features, time_features(t.float(), 256, 1000.0))


def test_positions_are_sines_and_cosines_of_x_and_then_of_y():
    rows, columns, d = 3, 5, 12
    places = grid_positions((rows, columns), d, like=torch.zeros(0, dtype=torch.float64))
    assert places.shape == (rows * columns, d)
    for y in range(rows):
        for x in range(columns):
            frequencies = [10_000 ** (-i / 3) for i in range(3)]
            by_hand = [
                wave(place * f) for place in (x, y) for wave in (math.sin, math.cos) for f in frequencies
            ]
            assert places[y * columns + x].tolist() == pytest.approx(by_hand, abs=1e-14)


def test_positions_are_computed_in_fp32_for_low_precision_weights():
    exact = grid_positions((40, 50), 8, like=torch.zeros(0))
    rough = grid_positions((40, 50), 8, like=torch.zeros(0, dtype=torch.bfloat16))
    assert torch.equal(rough, exact.bfloat16())


def test_no_two_cells_have_the_same_position():
    places = grid_positions((32, 32), 384, like=torch.zeros(0))
    distances = torch.cdist(places, places).fill_diagonal_(torch.inf)
    assert distances.min() > 0.5
