"""Bits per dimension: densities whose bits are known, offsets of ranges, and dequantisation bounds."""

import math

import pytest
import torch
from cf_eval.likelihood import BitsPerDimension, bits_per_dimension, importance_weighted, nats, offset_bits

EXACT = 1e-12


@pytest.mark.parametrize(
    ("value_range", "offset"),
    [("-1..1", 7), ("0..1", 8), ("0..256", 0), ((-0.5, 0.5), 8), ((0.0, 4.0), 6), ((-3.0, 1.0), 6)],
)
def test_the_offset_is_the_bits_the_scaling_takes_away(value_range, offset):
    assert offset_bits(value_range) == pytest.approx(offset, abs=EXACT)


@pytest.mark.parametrize("value_range", ["-1..1", "0..1", (-2.0, 3.0)])
@pytest.mark.parametrize("d", [1, 3, 3072])
def test_uniform_data_take_eight_bits_in_every_range(value_range, d):
    """The density of uniform data on a range of length r is r^-d, and 256 levels are 8 bits each."""
    low, high = {"-1..1": (-1, 1), "0..1": (0, 1)}.get(value_range, value_range)
    log_p = torch.tensor([-d * math.log(high - low)], dtype=torch.float64)
    assert float(bits_per_dimension(log_p, d, value_range)) == pytest.approx(8, rel=EXACT)


def test_a_gaussian_in_minus_one_to_one_has_the_bits_of_the_papers_formula():
    """Lipman et al. eq. 36: - log2 p(x) / d + 7."""
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_p = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1)
    expected = -torch.log2(torch.distributions.Normal(0.0, 1.0).log_prob(x).exp()).mean(1) + 7
    assert torch.allclose(bits_per_dimension(log_p, 12), expected, rtol=EXACT)


def test_the_bits_do_not_depend_on_how_the_data_were_scaled():
    x = torch.rand(7, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    unit = torch.distributions.Beta(2.0, 3.0).log_prob(x).sum(1)
    doubled = unit - 4 * math.log(2)  # the density of 2 x - 1
    assert torch.allclose(
        bits_per_dimension(unit, 4, "0..1"), bits_per_dimension(doubled, 4, "-1..1"), rtol=EXACT
    )


@pytest.mark.parametrize("levels", [2, 32, 256])
def test_nats_is_the_inverse(levels):
    log_p = torch.tensor([-1234.5, 0.0, 77.0], dtype=torch.float64)
    bits = bits_per_dimension(log_p, 33, (-1.0, 3.0), levels)
    assert torch.allclose(nats(bits, 33, (-1.0, 3.0), levels), log_p, rtol=EXACT)
    assert bool((bits[:-1] > bits[1:]).all())


def test_importance_weights_average_probabilities_not_logarithms():
    p = torch.rand(20, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert torch.allclose(importance_weighted(p.log()), p.mean(0).log(), rtol=EXACT)
    assert torch.equal(importance_weighted(p[:1].log()), p[0].log())
    assert bool((importance_weighted(p.log()) >= p.log().mean(0)).all())
    deep = torch.full((4, 1), -9000.0)
    assert float(importance_weighted(deep)) == pytest.approx(-9000)


def test_a_stream_has_the_mean_and_standard_error_of_the_whole():
    log_p = 1000 * torch.randn(23, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    metric = BitsPerDimension(3072, "0..1")
    metric.add_batch(log_p[:5])
    metric.add_batch(log_p[5:])
    result = metric.compute()
    bits = bits_per_dimension(log_p, 3072, "0..1")
    assert result.value == pytest.approx(float(bits.mean()), rel=EXACT)
    assert result.details["standard_error"] == pytest.approx(float(bits.std() / math.sqrt(23)), rel=1e-10)
    assert (result.count, result.protocol) == (23, "3072 dimensions, offset 8 bits (256 levels)")


def test_ranks_merge_to_the_whole_and_padding_counts_once():
    log_p = torch.randn(9, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    whole = BitsPerDimension(3)
    whole.add_batch(log_p, list(range(9)))
    parts = [BitsPerDimension(3) for _ in range(3)]
    parts[0].add_batch(log_p[6:], [6, 7, 8])
    parts[1].add_batch(log_p[:7], list(range(7)))
    for part in parts[1:]:
        parts[0].merge(part)
    assert parts[0].compute().value == whole.compute().value
    assert parts[0].compute().details["duplicates_dropped"] == 1
    assert whole.gathered().compute() == whole.compute()
    with pytest.raises(ValueError, match="cannot merge 3 dimensions, offset 8 bits, into 3, offset 7"):
        whole.merge(BitsPerDimension(3, "0..1"))


def test_what_has_no_bits_is_refused():
    with pytest.raises(ValueError, match=r"unknown value_range '0\.\.255'; known: 0\.\.256, 0\.\.1, -1\.\.1"):
        offset_bits("0..255")
    with pytest.raises(ValueError, match=r"low < high, got \(1\.0, 1\.0\)"):
        offset_bits((1.0, 1.0))
    with pytest.raises(ValueError, match="levels must be at least 2, got 1"):
        offset_bits("0..1", 1)
    with pytest.raises(ValueError, match="dimensions must be at least 1, got 0"):
        bits_per_dimension(torch.zeros(1), 0)
    with pytest.raises(ValueError, match=r"k >= 1 dequantisations, got \(0, 3\)"):
        importance_weighted(torch.zeros(0, 3))
    with pytest.raises(ValueError, match="log_p of sample 1 of the batch is nan"):
        BitsPerDimension(3).add_batch(torch.tensor([0.0, math.nan]))
    with pytest.raises(ValueError, match="no samples were added"):
        BitsPerDimension(3).compute()
