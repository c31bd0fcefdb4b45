import pytest
import torch
from cf_flowcore import multiscale_loss, scale_losses, scale_target
from cf_flowcore.multiscale import weighted_sum


def velocity(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_the_target_is_the_sum_of_each_cell_divided_by_k(k):
    v_t = velocity(2, 3, 12, 24)
    target = scale_target(v_t, k)
    for row, column in [(0, 0), (12 // k - 1, 1)]:
        cell = v_t[..., row * k : (row + 1) * k, column * k : (column + 1) * k]
        torch.testing.assert_close(target[..., row, column], cell.sum(dim=(-2, -1)) / k)


@pytest.mark.parametrize("k", [2, 4])
def test_the_target_keeps_the_variance_of_white_noise(k):
    assert scale_target(velocity(64, 4, 32, 32), k).std() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ("sizes", "weights"), [([8], (1.0,)), ([4, 8], (1 / 4, 1.0)), ([2, 4, 8], (1 / 4, 1 / 2, 1.0))]
)
def test_the_default_weights_are_those_of_dimr(sizes, weights):
    v_t = velocity(3, 2, 8, 8)
    predictions = [velocity(3, 2, size, size, seed=size) for size in sizes]
    expected = sum(
        w * (p - scale_target(v_t, 8 // size)).square().mean(dim=(1, 2, 3))
        for w, p, size in zip(weights, predictions, sizes, strict=True)
    )
    torch.testing.assert_close(multiscale_loss(predictions, v_t), expected)


def test_the_scales_are_reported_unweighted_low_to_high():
    v_t = velocity(3, 1, 6, 10)
    predictions = [scale_target(v_t, 2) + 2.0, v_t + 3.0]
    losses = scale_losses(predictions, v_t)
    torch.testing.assert_close(losses, torch.tensor([[4.0] * 3, [9.0] * 3], dtype=torch.float64))
    torch.testing.assert_close(weighted_sum(losses, (0.5, 2.0)), torch.full((3,), 20.0, dtype=torch.float64))


def test_exact_predictions_have_no_loss_and_the_lowest_scale_may_be_a_sixth():
    v_t = velocity(2, 3, 12, 18)
    assert multiscale_loss([scale_target(v_t, 6), v_t], v_t).abs().max() == 0.0


@pytest.mark.parametrize("size", [(5, 8), (8, 4), (3, 3), (16, 16)])
def test_a_prediction_that_does_not_divide_the_velocity_is_refused_with_both_sizes(size):
    v_t = velocity(1, 1, 8, 8)
    with pytest.raises(ValueError, match=rf"{size[0]}x{size[1]} does not divide the velocity's 8x8"):
        scale_losses([velocity(1, 1, *size)], v_t)


def test_weights_must_match_the_scales():
    v_t = velocity(1, 1, 8, 8)
    with pytest.raises(ValueError, match="2 scales need as many weights"):
        multiscale_loss([v_t, v_t], v_t, weights=(1.0,))
    with pytest.raises(ValueError, match="no default weights for 4 scales"):
        multiscale_loss([v_t] * 4, v_t)


# ------------------------------------------------------------------------------------------------- holes in x_1


def test_with_everything_known_the_losses_are_the_plain_ones():
    dice = torch.Generator().manual_seed(3)
    v_t = torch.randn(3, 2, 8, 4, generator=dice, dtype=torch.float64)
    predictions = [torch.randn(3, 2, 8 // k, 4 // k, generator=dice, dtype=torch.float64) for k in (4, 2, 1)]
    known = torch.ones(3, 1, 8, 4, dtype=torch.float64)
    torch.testing.assert_close(scale_losses(predictions, v_t, known), scale_losses(predictions, v_t))


def test_what_is_unknown_changes_no_loss_and_no_gradient():
    dice = torch.Generator().manual_seed(4)
    v_t = torch.randn(2, 3, 6, 6, generator=dice, dtype=torch.float64)
    known = (torch.rand(2, 1, 6, 6, generator=dice) < 0.4).double()
    predictions = [
        torch.randn(2, 3, 6 // k, 6 // k, generator=dice, dtype=torch.float64, requires_grad=True)
        for k in (3, 1)
    ]
    other = torch.where(known > 0, v_t, float("nan"))
    found = [
        (loss, torch.autograd.grad(loss.sum(), predictions))
        for loss in (scale_losses(predictions, v_t, known), scale_losses(predictions, other, known))
    ]
    torch.testing.assert_close(found[0], found[1])
    assert found[0][1][1][(known == 0).expand(2, 3, 6, 6)].eq(0).all()


def test_the_losses_of_known_pixels_are_those_of_a_loop_over_cells():
    dice = torch.Generator().manual_seed(5)
    v_t = torch.randn(2, 1, 4, 4, generator=dice, dtype=torch.float64)
    prediction = torch.randn(2, 1, 2, 2, generator=dice, dtype=torch.float64)
    known = (torch.rand(2, 1, 4, 4, generator=dice) < 0.5).double()
    known[1, :, :2, :2] = 0  # a cell without any
    expected = []
    for b in range(2):
        total = weight = 0.0
        for i in range(2):
            for j in range(2):
                cell = slice(2 * i, 2 * i + 2), slice(2 * j, 2 * j + 2)
                seen = known[b, 0][cell].bool()
                if seen.any():
                    target = 2 * v_t[b, 0][cell][seen].mean()  # k times the average
                    total += seen.double().mean() * (prediction[b, 0, i, j] - target) ** 2
                    weight += seen.double().mean()
        expected.append(total / weight)
    torch.testing.assert_close(scale_losses([prediction], v_t, known)[0], torch.stack(expected))


def test_a_sample_without_a_known_pixel_has_no_loss():
    v_t, known = torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    assert scale_losses([torch.ones(1, 1, 4, 4)], v_t, known).item() == 0
