"""Feature rows kept, ordered, folded and merged."""

import pytest
import torch
from cf_eval.images.feature_set import FeatureSet, require_finite
from cf_eval.images.feature_stream import FeatureStream, as_moments
from cf_eval.moments import Moments

WIDTH = 3


def rows(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 5


def filled(kind, x, ids=None, batch=4):
    store = kind()
    for start in range(0, len(x), batch):
        part = slice(start, start + batch)
        store.add(x[part], None if ids is None else ids[part])
    return store


def assert_same(stream: FeatureStream, x: torch.Tensor) -> None:
    found, expected = as_moments(stream.summary()), Moments.of(x)
    assert (stream.count, found.count) == (len(x), len(x))
    torch.testing.assert_close(found.mean, expected.mean, rtol=1e-13, atol=0)
    torch.testing.assert_close(found.scatter, expected.scatter, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [FeatureSet, FeatureStream])
@pytest.mark.parametrize("split", [(10, 10, 11), (0, 31, 0), (1, 0, 30)])
def test_any_shards_merge_to_the_whole(kind, split):
    x = rows(31)
    whole = kind()
    for shard in x.split(split):
        whole.merge(filled(kind, shard))
    assert whole.count == 31
    if kind is FeatureSet:
        assert torch.equal(whole.features(), x)
    else:
        assert_same(whole, x)


def test_with_ids_the_rows_have_the_order_of_the_ids_however_they_came():
    x = rows(23)
    order = torch.randperm(23, generator=torch.Generator().manual_seed(1))
    shuffled = filled(FeatureSet, x[order], order.tolist())
    assert torch.equal(shuffled.features(), x)
    named = filled(FeatureSet, x[order], [f"{i:02}" for i in order.tolist()])
    assert torch.equal(named.features(), x)


@pytest.mark.parametrize("kind", [FeatureSet, FeatureStream])
def test_a_sample_counts_once_within_a_rank_and_across_ranks(kind):
    """Three ranks of a padding sampler: 31 samples, dealt in turn, the first two shown again at the end."""
    x, ids = rows(31), [*range(31), 0, 1]
    ranks = [filled(kind, x[ids[r::3]], ids[r::3]) for r in range(3)]
    ranks[0].add(x[ids[0::3]], ids[0::3])
    whole = kind()
    for rank in ranks:
        whole.merge(rank)
    assert (whole.count, whole.dropped) == (31, 11 + 2)
    if kind is FeatureSet:
        assert torch.equal(whole.features(), x)
    else:
        assert_same(whole, x)


def test_a_sample_that_two_ranks_have_summed_up_is_refused():
    x, ids = rows(31), list(range(31))
    a, b = filled(FeatureStream, x, ids), filled(FeatureStream, x, ids)
    with pytest.raises(ValueError, match=r"samples were seen by two ranks, e.g. id 0, .*drop_last=True"):
        a.merge(b)


def test_a_stream_keeps_rows_as_long_as_they_are_few_and_never_more_than_twice_the_width():
    stream = FeatureStream()
    for n, batch in enumerate(rows(40).split(1), start=1):
        stream.add(batch)
        assert stream.recent.count <= 2 * WIDTH
        assert isinstance(stream.summary(), torch.Tensor) == (n <= 2 * WIDTH)
    assert_same(stream, rows(40))


def test_merging_leaves_the_other_as_it_was():
    a, b = filled(FeatureStream, rows(5)), filled(FeatureStream, rows(20, seed=1))
    a.merge(b)
    a.add(rows(9, seed=2))
    assert_same(b, rows(20, seed=1))


@pytest.mark.parametrize("kind", [FeatureSet, FeatureStream])
def test_bad_rows_are_named(kind):
    store = filled(kind, rows(6))
    bad = rows(4)
    bad[2, 1] = torch.nan
    with pytest.raises(ValueError, match=r"feature row [28] is not finite"):
        store.add(bad)
    with pytest.raises(ValueError, match="features are 2 wide, those before 3"):
        store.add(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="give ids always or never"):
        store.add(rows(2), [1, 2])
    with pytest.raises(ValueError, match="give ids always or never"):
        store.merge(filled(kind, rows(2), [1, 2]))
    with pytest.raises(ValueError, match="1 ids for 2 samples"):
        kind().add(rows(2), [1])
    assert store.count == 6


def test_features_that_are_no_rows_are_refused():
    with pytest.raises(ValueError, match=r"must be \(n, d\), got shape \(3, 2, 1\); flatten them"):
        require_finite(torch.zeros(3, 2, 1))


def test_half_precision_is_kept_as_single():
    store = filled(FeatureSet, rows(3).half())
    assert store.features().dtype == torch.float32


def test_an_empty_set_has_no_features():
    with pytest.raises(ValueError, match="the set is empty"):
        FeatureSet().features()
