"""The Fréchet distance against closed forms and against scipy's matrix square root."""

import numpy as np
import pytest
import scipy.linalg
import torch
from cf_eval.frechet import FrechetDistance, frechet_distance, trace_sqrt_product
from cf_eval.moments import Moments

EXACT = 1e-10  # closed forms of order one at d <= 20


def gaussian(mean: torch.Tensor, cov: torch.Tensor) -> Moments:
    """Moments with this mean and covariance, as if of 11 samples."""
    return Moments(11, mean.double(), 10 * cov.double())


def features(n: int, d: int, seed: int) -> torch.Tensor:
    """Correlated features off the origin."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=g, dtype=torch.float64)
    return torch.randn(n, d, generator=g, dtype=torch.float64) @ mix + seed


def spd(d: int, seed: int) -> torch.Tensor:
    root = torch.randn(d, d + 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.T / d


@pytest.mark.parametrize(("n", "d"), [(50, 1), (50, 7), (200, 20)])
def test_it_agrees_with_scipys_matrix_square_root(n, d):
    x, y = features(n, d, 1), features(n + 3, d, 2)
    mu = x.mean(0) - y.mean(0)
    s1, s2 = (np.atleast_2d(np.cov(z.numpy(), rowvar=False)) for z in (x, y))
    root = scipy.linalg.sqrtm(s1 @ s2)
    expected = float(mu @ mu) + np.trace(s1 + s2 - 2 * np.real(root))
    assert frechet_distance(Moments.of(x), Moments.of(y)) == pytest.approx(expected, rel=1e-9)


def test_in_one_dimension_it_is_the_squares_of_the_differences():
    one = torch.ones(1)
    a, b = gaussian(2 * one, 9 * one[None]), gaussian(-1 * one, 4 * one[None])
    assert frechet_distance(a, b) == pytest.approx((2 + 1) ** 2 + (3 - 2) ** 2, abs=EXACT)


def test_diagonal_covariances_add_up_dimension_by_dimension():
    a, b = torch.tensor([1.0, 4.0, 0.25, 9.0]), torch.tensor([16.0, 1.0, 0.0, 9.0])
    zero = torch.zeros(4)
    distance = frechet_distance(gaussian(zero, a.diag()), gaussian(zero, b.diag()))
    assert distance == pytest.approx(float((a.sqrt() - b.sqrt()).square().sum()), abs=EXACT)


@pytest.mark.parametrize("d", [1, 5, 20])
def test_a_known_root_is_found(d):
    """S_2 = A S_1 A with A positive has tr (S_1 S_2)^{1/2} = tr (A S_1)."""
    s, a = spd(d, 1), spd(d, 2)
    assert trace_sqrt_product(s, a @ s @ a) == pytest.approx(float((a @ s).trace()), rel=EXACT)


def test_equal_covariances_leave_the_shift_of_the_means():
    x = features(100, 6, 3)
    shift = torch.tensor([1.0, -2.0, 0.0, 0.5, 0.0, 3.0], dtype=torch.float64)
    distance = frechet_distance(Moments.of(x), Moments.of(x + shift))
    assert distance == pytest.approx(float(shift @ shift), rel=EXACT)


@pytest.mark.parametrize(("n", "d"), [(100, 9), (10, 10), (5, 40), (2, 3)])
def test_a_set_is_at_no_distance_from_itself_however_few_samples_it_has(n, d):
    moments = Moments.of(features(n, d, 4))
    assert frechet_distance(moments, moments) <= EXACT * float(moments.cov.trace())


@pytest.mark.parametrize(("n", "m", "d"), [(5, 40, 12), (6, 7, 30), (40, 5, 12)])
def test_fewer_samples_than_dimensions_give_the_nuclear_norm(n, m, d):
    """tr (S_1 S_2)^{1/2} = |X_c Y_c^T|_* / sqrt((n - 1)(m - 1)), from the samples themselves."""
    x, y = features(n, d, 5), features(m, d, 6)
    centred = (x - x.mean(0)) @ (y - y.mean(0)).T
    expected = torch.linalg.svdvals(centred).sum() / ((n - 1) * (m - 1)) ** 0.5
    assert trace_sqrt_product(Moments.of(x).cov, Moments.of(y).cov) == pytest.approx(
        float(expected), rel=1e-6
    )


@pytest.mark.parametrize(("n", "m"), [(5, 8), (5, 40), (40, 5), (40, 50)])
def test_features_give_the_distance_of_their_moments(n, m):
    x, y = features(n, 12, 5), features(m, 12, 6)
    expected = frechet_distance(Moments.of(x), Moments.of(y))
    for sides in ((x, y), (x, Moments.of(y)), (Moments.of(x), y)):
        assert frechet_distance(*sides) == pytest.approx(expected, rel=1e-6)


def test_few_features_have_the_distance_of_their_cross_products():
    """n = 2: one direction each, S_1 = u u^T / 2 and S_2 = w w^T / 2, so tr (S_1 S_2)^{1/2} = |u . w| / 2."""
    x, y = features(2, 7, 5), features(2, 7, 6)
    u, w, shift = x[0] - x[1], y[0] - y[1], x.mean(0) - y.mean(0)
    expected = shift @ shift + (u @ u + w @ w) / 2 - (u @ w).abs()
    assert frechet_distance(x, y) == pytest.approx(float(expected), rel=1e-13)


@pytest.mark.parametrize("n", [2, 9, 30])
def test_few_features_are_at_no_distance_from_themselves_to_rounding(n):
    """Covariances of rank n - 1 would leave the square root of rounding, 1e-7 and more."""
    x = features(n, 31, 7)
    assert frechet_distance(x, x) <= 1e-13 * float(Moments.of(x).cov.trace())


def test_features_that_cannot_be_compared_are_refused():
    x = features(5, 12, 5)
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        frechet_distance(x[:1], x)
    with pytest.raises(ValueError, match="widths 12 and 11"):
        frechet_distance(x, x[:, :11])
    x[3, 4] = torch.nan
    with pytest.raises(ValueError, match="feature row 3 is not finite"):
        frechet_distance(x, features(5, 12, 6))


def test_constant_features_are_a_point():
    x = features(30, 4, 7)
    point = Moments.of(torch.ones(9, 4))
    expected = (x.mean(0) - 1).square().sum() + Moments.of(x).cov.trace()
    assert frechet_distance(Moments.of(x), point) == pytest.approx(float(expected), rel=EXACT)
    assert frechet_distance(point, point) == 0


def test_it_is_symmetric_and_turns_with_the_axes():
    x, y = features(60, 8, 8), features(70, 8, 9)
    turn = torch.linalg.qr(features(8, 8, 10)).Q
    distance = frechet_distance(Moments.of(x), Moments.of(y))
    assert frechet_distance(Moments.of(y), Moments.of(x)) == pytest.approx(distance, rel=EXACT)
    assert frechet_distance(Moments.of(x @ turn), Moments.of(y @ turn)) == pytest.approx(distance, rel=EXACT)


def test_it_grows_with_the_square_of_the_unit():
    x, y = features(60, 8, 8), features(70, 8, 9)
    distance = frechet_distance(Moments.of(x), Moments.of(y))
    assert frechet_distance(Moments.of(3 * x), Moments.of(3 * y)) == pytest.approx(9 * distance, rel=EXACT)


def test_what_is_no_covariance_is_refused():
    zero = torch.zeros(2)
    no_covariance = torch.tensor([[1.0, 3.0], [3.0, 1.0]])
    with pytest.raises(ValueError, match="not positive"):
        frechet_distance(gaussian(zero, no_covariance), gaussian(zero, no_covariance))
    with pytest.raises(ValueError, match="widths 2 and 3"):
        frechet_distance(gaussian(zero, torch.eye(2)), gaussian(torch.zeros(3), torch.eye(3)))


def colour_means(images: torch.Tensor) -> torch.Tensor:
    return images.double().mean((2, 3))


@pytest.fixture
def images() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    real = torch.randint(0, 256, (23, 3, 4, 4), generator=g, dtype=torch.uint8)
    generated = torch.randint(0, 200, (31, 3, 4, 4), generator=g, dtype=torch.uint8)
    return real, generated


def test_a_stream_of_images_gives_the_distance_of_the_whole_sets(images):
    real, generated = images
    metric = FrechetDistance(colour_means, "colour means")
    metric.add_batch(real=real[:4], generated=generated[:20])
    metric.add_batch(real=real[4:])
    metric.add_batch(generated=generated[20:])
    result = metric.compute()
    whole = frechet_distance(Moments.of(colour_means(real)), Moments.of(colour_means(generated)))
    assert result.value == pytest.approx(whole, rel=EXACT)
    assert (result.count, result.details["real_count"], result.details["width"]) == (31, 23, 3)


def test_the_result_names_its_feature_space_and_is_not_called_fid(images):
    metric = FrechetDistance(colour_means, "colour means")
    metric.add_batch(real=images[0], generated=images[1])
    text = metric.compute().to_json()
    assert "colour means" in text
    assert "fid" not in text.lower()


def test_ranks_merge_to_the_whole_even_when_one_saw_nothing(images):
    real, generated = images
    whole = FrechetDistance(colour_means, "colour means")
    whole.add_batch(real=real, generated=generated)
    ranks = [FrechetDistance(colour_means, "colour means") for _ in range(3)]
    ranks[0].add_batch(real=real[:7])
    ranks[2].add_batch(real=real[7:], generated=generated)
    ranks[0].merge(ranks[1])
    ranks[0].merge(ranks[2])
    assert ranks[0].compute().value == pytest.approx(whole.compute().value, rel=EXACT)


def test_misuse_is_named(images):
    metric = FrechetDistance(colour_means, "colour means")
    with pytest.raises(ValueError, match=r"real=\.\.\., generated="):
        metric.add_batch()
    metric.add_batch(real=images[0])
    with pytest.raises(ValueError, match="the generated set has 0 samples"):
        metric.compute()
    with pytest.raises(ValueError, match="cannot merge 'edges' into 'colour means'"):
        metric.merge(FrechetDistance(colour_means, "edges"))
    with pytest.raises(ValueError, match="must name the features"):
        FrechetDistance(colour_means, "")
