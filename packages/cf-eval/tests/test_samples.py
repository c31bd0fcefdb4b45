"""Rows of samples: each id once, and all ranks together are the whole, whatever each of them saw."""

import pickle
from itertools import pairwise

import cf_eval.samples
import pytest
import torch
from cf_eval.depth.protocols import DepthProtocol
from cf_eval.depth.score import DepthMetrics
from cf_eval.likelihood import BitsPerDimension
from cf_eval.reconstruction import TokenReconstruction
from cf_eval.samples import Samples, ids_for, mean


def filled(pairs) -> Samples[int]:
    samples: Samples[int] = Samples()
    for row, id in pairs:
        if samples.is_new(id):
            samples.append(row, id)
    return samples


def test_an_id_counts_once_and_rows_without_one_always():
    samples = filled([(1, "a"), (2, None), (3, "a"), (4, None), (5, 0), (6, 0)])
    assert (samples.rows, samples.ids, samples.dropped) == ([1, 2, 4, 5], ["a", None, None, 0], 2)
    assert len(samples) == 4


def test_merging_keeps_the_first_and_counts_the_rest():
    one, two = filled([(1, "a"), (2, "b")]), filled([(9, "b"), (3, "c"), (4, "c")])
    one.merge(two)
    assert (one.rows, one.dropped) == ([1, 2, 3], 2)
    one.merge(Samples())
    assert one.rows == [1, 2, 3]


def test_ids_are_one_for_one():
    assert list(ids_for(2, None)) == [None, None]
    with pytest.raises(ValueError, match="3 ids for 2 samples"):
        ids_for(2, ["a", "b", "c"])


def test_the_mean_does_not_depend_on_the_order():
    values = [1e16, 1.0, -1e16, 3.0]
    assert mean(values) == mean(sorted(values)) == mean(reversed(values)) == 1.0


@pytest.fixture
def ranks(monkeypatch):
    """What torch.distributed would do with the states of these ranks: pickle them and hand all to everyone."""
    states = []

    def all_ranks(state, group=None):
        return [pickle.loads(pickle.dumps(s)) for s in states]

    monkeypatch.setattr(cf_eval.samples, "all_ranks", all_ranks)
    return states


@pytest.mark.parametrize("cuts", [(0, 11), (0, 3, 11), (0, 7, 7, 11)])
def test_one_two_or_three_ranks_uneven_and_empty_give_the_same(ranks, cuts):
    g = torch.Generator().manual_seed(0)
    truth = 1 + 5 * torch.rand(11, 4, 5, generator=g, dtype=torch.float64)
    predicted = truth * (0.2 * torch.randn(11, 4, 5, generator=g, dtype=torch.float64)).exp()
    mask = torch.rand(11, 4, generator=g) > 0.2
    mask[:, 0] = True

    def run(a: int, b: int):
        depth, bits, tokens = (
            DepthMetrics(DepthProtocol(0.1, 10.0)),
            BitsPerDimension(5),
            TokenReconstruction(),
        )
        ids = list(range(a, b))
        depth.add_batch(predicted[a:b], truth[a:b], ids=ids)
        bits.add_batch(truth[a:b].sum((1, 2)), ids)
        if b > a:
            tokens.add_batch(predicted[a:b], truth[a:b], mask[a:b], ids)
        return depth, bits, tokens

    whole = run(0, 11)
    shards = [run(a, b) for a, b in pairwise(cuts)]
    for i, metric in enumerate(whole):
        ranks[:] = [shard[i].samples for shard in shards]
        for shard in shards:
            gathered = shard[i].gathered().compute()
            assert gathered.values == pytest.approx(dict(metric.compute().values), rel=1e-12)
            assert gathered.count == 11
