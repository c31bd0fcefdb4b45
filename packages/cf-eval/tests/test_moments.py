"""Streaming moments against numpy on the whole."""

import numpy as np
import pytest
import torch
from cf_eval.moments import Moments
from hypothesis import given, settings
from hypothesis import strategies as st

ROUNDING = {"rtol": 1e-12, "atol": 1e-12}


def features(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_same(a: Moments, b: Moments) -> None:
    assert a.count == b.count
    torch.testing.assert_close(a.mean, b.mean, **ROUNDING)
    torch.testing.assert_close(a.scatter, b.scatter, **ROUNDING)


@pytest.mark.parametrize(("n", "d"), [(2, 1), (7, 5), (5, 7), (101, 13)])
def test_mean_and_covariance_are_numpys(n, d):
    x = features(n, d) * torch.arange(1, d + 1) + 3
    moments = Moments.of(x)
    np.testing.assert_allclose(moments.mean, x.numpy().mean(0), rtol=1e-13)
    np.testing.assert_allclose(
        moments.cov, np.atleast_2d(np.cov(x.numpy(), rowvar=False)), rtol=1e-12, atol=1e-13
    )


@given(st.lists(st.integers(0, 40), max_size=6), st.randoms())
@settings(deadline=None, max_examples=20, derandomize=True)
def test_any_cut_into_batches_merged_in_any_order_equals_the_whole(cuts, order):
    x = features(40, 3)
    batches = list(x.tensor_split(sorted(cuts)))
    order.shuffle(batches)
    streamed, merged = Moments.empty(3), Moments.empty(3)
    for batch in batches:
        streamed = streamed.update(batch)
        merged = Moments.of(batch).merge(merged)
    assert_same(streamed, Moments.of(x))
    assert_same(merged, Moments.of(x))


def test_a_mean_far_from_zero_costs_no_digits():
    """sum x x^T - n mean mean^T would be off by everything here: 1e16 - 1e16."""
    x = features(1000, 3)
    far = Moments.empty(3)
    for batch in (x + 1e8).split(97):
        far = far.update(batch)
    torch.testing.assert_close(far.cov, Moments.of(x).cov, rtol=0, atol=1e-7)


def test_half_and_single_precision_features_are_summed_in_double():
    x = features(50, 4).half()
    assert Moments.of(x).mean.dtype == torch.float64
    assert_same(Moments.of(x), Moments.of(x.double()))


def test_updating_leaves_the_old_moments_alone():
    before = Moments.of(features(5, 2))
    mean, scatter = before.mean.clone(), before.scatter.clone()
    before.update(features(9, 2, seed=1))
    assert torch.equal(before.mean, mean)
    assert torch.equal(before.scatter, scatter)


def test_saving_and_loading_gives_the_same_moments(tmp_path):
    moments = Moments.of(features(20, 3))
    moments.save(tmp_path / "stats.npz")
    assert_same(Moments.load(tmp_path / "stats.npz"), moments)
    assert [path.name for path in tmp_path.iterdir()] == ["stats.npz"]


def test_a_file_of_another_tool_needs_the_count_and_can_then_be_merged(tmp_path):
    x, y = features(20, 3), features(9, 3, seed=1)
    np.savez(tmp_path / "stats.npz", mu=x.numpy().mean(0), sigma=np.cov(x.numpy(), rowvar=False))
    with pytest.raises(ValueError, match="pass count="):
        Moments.load(tmp_path / "stats.npz")
    loaded = Moments.load(tmp_path / "stats.npz", count=20)
    assert_same(loaded.update(y), Moments.of(torch.cat([x, y])))


def test_a_wrong_count_or_a_wrong_file_is_named(tmp_path):
    Moments.of(features(20, 3)).save(tmp_path / "stats.npz")
    with pytest.raises(ValueError, match="20 samples, not 30"):
        Moments.load(tmp_path / "stats.npz", count=30)
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(ValueError, match="no mu and sigma; its arrays: weights"):
        Moments.load(tmp_path / "other.npz")


def test_a_file_says_its_count_or_that_it_does_not(tmp_path):
    Moments.of(features(20, 3)).save(tmp_path / "ours.npz")
    np.savez(tmp_path / "peer.npz", mu=np.zeros(3), sigma=np.eye(3))
    assert Moments.stored_count(tmp_path / "ours.npz") == 20
    assert Moments.stored_count(tmp_path / "peer.npz") is None


@pytest.mark.parametrize(
    ("mu", "sigma", "message"),
    [
        (np.zeros(3), np.eye(4), r"sigma \(d, d\), got \(3,\) and \(4, 4\)"),
        (np.zeros((3, 1)), np.eye(3), r"mu must be \(d,\)"),
        (np.zeros(3), np.full((3, 3), np.nan), "NaN or infinity"),
    ],
)
def test_statistics_that_do_not_fit_are_refused(tmp_path, mu, sigma, message):
    np.savez(tmp_path / "stats.npz", mu=mu, sigma=sigma)
    with pytest.raises(ValueError, match=message):
        Moments.load(tmp_path / "stats.npz", count=9)


@pytest.mark.parametrize("kept", [0, 10, 300])
def test_a_truncated_file_is_named_and_a_missing_one_is_missing(tmp_path, kept):
    path = tmp_path / "stats.npz"
    Moments.of(features(20, 3)).save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"stats\.npz cannot be read as an npz"):
        Moments.load(path)
    with pytest.raises(FileNotFoundError):
        Moments.load(tmp_path / "no.npz")


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_feature_that_is_no_number_is_named_by_its_row(bad):
    x = features(5, 2)
    x[3, 1] = bad
    with pytest.raises(ValueError, match="row 3"):
        Moments.of(x)


def test_too_few_samples_and_different_widths_are_refused():
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        _ = Moments.of(features(1, 2)).cov
    with pytest.raises(ValueError, match="widths 2 and 3"):
        Moments.of(features(4, 2)).merge(Moments.of(features(4, 3)))
