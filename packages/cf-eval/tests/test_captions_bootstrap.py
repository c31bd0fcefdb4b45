"""Bootstrap intervals against a plain loop over resampled captions, and against the normal approximation."""

import numpy as np
import pytest
from cf_eval.captions import bootstrap
from cf_eval.captions.bleu import bleu
from cf_eval.captions.bootstrap import bootstrap_intervals
from cf_eval.captions.ngrams import CountedCaptions
from cf_eval.captions.scores import mean_score

PAIRS = [
    ("a b c d e", ["a b c d", "b c d e f"]),
    ("a cat on a mat", ["a cat on the mat"]),
    ("x y", ["x y z w", "y"]),
    ("the dog runs", ["a dog runs fast"]),
    ("q", ["r s t"]),
]


def test_an_interval_is_that_of_a_plain_loop_over_resampled_corpora():
    candidates, references = [c for c, _ in PAIRS], [r for _, r in PAIRS]
    found = bootstrap_intervals(bleu(CountedCaptions.of(candidates, references)), 0.8, resamples=200, seed=3)
    drawn = np.random.default_rng(3).multinomial(len(PAIRS), np.full(len(PAIRS), 1 / len(PAIRS)), size=200)
    plain = []
    for times in drawn:
        chosen = [i for i, k in enumerate(times) for _ in range(k)]
        corpus = CountedCaptions.of([candidates[i] for i in chosen], [references[i] for i in chosen])
        plain.append(list(bleu(corpus).values.values()))
    low, high = np.quantile(plain, [0.1, 0.9], axis=0)
    np.testing.assert_allclose(list(found.values()), np.stack([low, high], 1), rtol=1e-12)
    assert list(found) == ["bleu_1", "bleu_2", "bleu_3", "bleu_4"]


def test_of_many_captions_a_mean_has_the_normal_interval():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=2000)
    (low, high) = bootstrap_intervals(mean_score("m", values), resamples=2000)["m"]
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_a_seed_gives_one_interval_however_many_resamples_are_held_at_a_time(monkeypatch):
    scores = mean_score("m", np.random.default_rng(1).random(50))
    whole = bootstrap_intervals(scores, resamples=101, seed=5)
    assert whole == bootstrap_intervals(scores, resamples=101, seed=5)
    assert whole != bootstrap_intervals(scores, resamples=101, seed=6)
    monkeypatch.setattr(bootstrap, "BLOCK", 7 * 50)
    in_blocks = bootstrap_intervals(scores, resamples=101, seed=5)
    np.testing.assert_allclose(in_blocks["m"], whole["m"], rtol=1e-13)


def test_one_caption_has_an_interval_of_no_width():
    (low, high) = bootstrap_intervals(mean_score("m", np.array([0.25])))["m"]
    assert low == high == 0.25


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_a_level_is_a_share(level):
    with pytest.raises(ValueError, match="between 0 and 1"):
        bootstrap_intervals(mean_score("m", np.ones(3)), level)


def test_one_resample_is_none():
    with pytest.raises(ValueError, match="at least 2"):
        bootstrap_intervals(mean_score("m", np.ones(3)), resamples=1)
