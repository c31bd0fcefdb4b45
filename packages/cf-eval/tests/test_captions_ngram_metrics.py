"""BLEU, CIDEr-D and ROUGE-L against pycocoevalcap on the same tokens, and against values known by hand."""

import math

import numpy as np
import pytest
from cf_eval.captions import ngrams
from cf_eval.captions.bleu import bleu
from cf_eval.captions.cider import cider_d
from cf_eval.captions.document_frequency import DocumentFrequencies
from cf_eval.captions.ngrams import CountedCaptions
from cf_eval.captions.rouge import rouge_l
from cf_eval.captions.scores import Scores
from hypothesis import example, given, settings
from hypothesis import strategies as st

# Sums in another order; the peers' values have some 1e-15 of rounding.
ROUNDING = {"rtol": 0, "atol": 1e-9}

# Few words, so that n-grams of all orders match; two blanks, a blank at an end, a no-break space, other blanks.
row = st.lists(st.sampled_from(["a", "b", "c", "d", "é", "1\xa01/2"]), max_size=8).map(" ".join)
odd_row = st.text(alphabet="ab  \xa0\t", max_size=9)
captions = st.lists(
    st.tuples(row | odd_row, st.lists(row | odd_row, min_size=1, max_size=4)), min_size=1, max_size=6
)


def split(pairs) -> tuple[list[str], list[list[str]]]:
    return [candidate for candidate, _ in pairs], [list(rows) for _, rows in pairs]


def counted(pairs) -> CountedCaptions:
    return CountedCaptions.of(*split(pairs))


def assert_is(scores: Scores, corpus, per_caption) -> None:
    np.testing.assert_allclose(list(scores.values.values()), np.atleast_1d(corpus), **ROUNDING)
    np.testing.assert_allclose(scores.per_caption.T, np.atleast_2d(per_caption), **ROUNDING)


def peer(scorer, pairs, **options):
    gts = {i: list(rows) for i, (_, rows) in enumerate(pairs)}
    return scorer.compute_score(gts, {i: [candidate] for i, (candidate, _) in enumerate(pairs)}, **options)


@given(captions)
@example([("", [""]), ("a", ["a", "a"]), ("a  b", ["a b"])])
@example([("a b c d", ["a b c d"]), ("e f g h", ["e f g h", "a b c d"])])
@settings(deadline=None, max_examples=150, derandomize=True)
def test_every_value_is_pycocoevalcaps(pairs):
    bleu_scorer = pytest.importorskip("pycocoevalcap.bleu.bleu").Bleu(4)
    rouge_scorer = pytest.importorskip("pycocoevalcap.rouge.rouge").Rouge()
    assert_is(bleu(counted(pairs)), *peer(bleu_scorer, pairs, verbose=0))
    assert_is(rouge_l(*split(pairs)), *peer(rouge_scorer, pairs))
    if any(
        rows_word for _, rows in pairs for rows_word in " ".join(rows).split()
    ):  # the peer fails on none at all
        cider_scorer = pytest.importorskip("pycocoevalcap.cider.cider").Cider()
        assert_is(cider_d(counted(pairs)), *peer(cider_scorer, pairs))


def test_a_large_vocabulary_is_counted_the_same(monkeypatch):
    """More words than fit four in one number: sorted by another way. The counts do not change."""
    pairs = [(f"a b w{i} c w{i + 1}", [f"a b w{i} d", f"w{i + 1} c w{i} c"]) for i in range(30)]
    one_number = counted(pairs)
    monkeypatch.setattr(ngrams, "NUMBER_BITS", 1)
    sorted_by_words = counted(pairs)
    for a, b in zip(one_number.orders, sorted_by_words.orders, strict=True):
        for name in ("sentence", "ngram", "count", "group", "starts"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert one_number.texts() == sorted_by_words.texts()


def test_rows_with_the_mark_between_rows_in_them_are_counted_right():
    marked = counted([("\0 a", ["a \0\0 b", "\0"]), ("a", ["a"])])
    plain = counted([("x a", ["a xx b", "x"]), ("a", ["a"])])
    np.testing.assert_array_equal(marked.lengths, plain.lengths)
    for a, b in zip(bleu(marked).per_caption, bleu(plain).per_caption, strict=True):
        np.testing.assert_array_equal(a, b)


def test_repeated_words_are_clipped_at_the_most_in_one_reference():
    """Papineni's example: 'the' seven times against two in one reference, one in the other: 2 of 7."""
    scores = bleu(
        counted([("the the the the the the the", ["the cat is on the mat", "there is a cat on the mat"])])
    )
    assert scores.values["bleu_1"] == pytest.approx(2 / 7, abs=1e-9)


def test_the_reference_closest_in_length_counts_and_of_two_the_shorter():
    ratio = 4 / 3  # candidate of 4 words, references of 3 and 5: no penalty with 3
    assert ratio > 1
    near = bleu(counted([("a b c d", ["a b c", "a b c d e"])])).values["bleu_1"]
    assert near == pytest.approx(1.0, abs=1e-8)
    short = bleu(counted([("a b", ["a b c", "a b c d e"])])).values["bleu_1"]
    assert short == pytest.approx(math.exp(1 - 3 / 2), abs=1e-8)


def test_a_corpus_value_is_no_mean_and_comes_from_sums():
    pairs = [("a b c d e", ["a b c d e"]), ("x", ["a b c"])]
    scores = bleu(counted(pairs))
    matched, guessed = 5, 6
    assert scores.values["bleu_1"] == pytest.approx(matched / guessed * math.exp(1 - 8 / 6), abs=1e-8)
    assert scores.values["bleu_1"] != pytest.approx(scores.per_caption[:, 0].mean(), abs=1e-3)


def test_an_empty_candidate_scores_nothing_in_bleu_and_cider():
    pairs = [("", ["a b"]), ("c d", ["c d"])]
    assert bleu(counted(pairs)).per_caption[0].tolist() == [0.0] * 4
    assert cider_d(counted(pairs)).per_caption[0] == 0.0


def test_perfect_captions_with_words_of_their_own_reach_ten():
    pairs = [("a b c d e", ["a b c d e"] * 2), ("f g h i", ["f g h i"]), ("j k l m", ["j k l m"])]
    np.testing.assert_allclose(cider_d(counted(pairs)).per_caption, 10.0, rtol=1e-12)


def test_one_image_and_words_all_images_share_weigh_nothing_in_cider():
    assert cider_d(counted([("a b", ["a b"])])).values["cider_d"] == 0.0
    assert cider_d(counted([("a b", ["a b"]), ("a b", ["a b"])])).values["cider_d"] == 0.0


def test_a_difference_of_bigrams_costs_its_gaussian():
    """Candidate 'a b', reference 'a b x x x': 1 and 4 bigrams, one shared 1-gram pair and bigram."""
    pairs = [("a b", ["a b x x x"]), ("q", ["r"])]
    idf, penalty = math.log(2), math.exp(-(3**2) / 72)
    one = 2 * idf**2 / (math.sqrt(2) * idf * math.sqrt(1 + 1 + 9) * idf)
    two = idf**2 / (idf * math.sqrt(1 + 1 + 4) * idf)  # ab, bx, xx twice
    expected = 10 * (one + two) / 4 * penalty
    assert cider_d(counted(pairs)).per_caption[0, 0] == pytest.approx(expected, rel=1e-12)


def test_frequencies_of_the_same_references_change_nothing_and_of_others_do(tmp_path):
    pairs = [("a b c", ["a b d", "a c"]), ("d e", ["d e f"]), ("a", ["b  c\xa0d"])]
    own = DocumentFrequencies.of(split(pairs)[1])
    assert own.images == 3
    assert own.counts["a"] == 1
    assert own.counts["b"] == 2
    assert own.counts["d e f"] == 1
    assert "c d" in own.counts
    assert all(len(text.split()) <= 4 and n >= 1 for text, n in own.counts.items())
    plain = cider_d(counted(pairs))
    np.testing.assert_allclose(cider_d(counted(pairs), own).per_caption, plain.per_caption, rtol=1e-13)

    own.save(tmp_path / "df.npz")
    assert DocumentFrequencies.load(tmp_path / "df.npz") == own
    assert [path.name for path in tmp_path.iterdir()] == ["df.npz"]

    larger = DocumentFrequencies(1000, {"a": 500, "b": 10})
    assert cider_d(counted(pairs[:1]), larger).values["cider_d"] > 0
    # one image, one word each way: weight ln 1000 - ln 500 for a, ln 1000 for z, never counted
    both = cider_d(counted([("a z", ["a y"])]), larger).per_caption[0, 0]
    w_a, w_z = math.log(2), math.log(1000)
    assert both == pytest.approx(10 / 4 * w_a**2 / (w_a**2 + w_z**2), rel=1e-12)


def test_tables_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'a' is counted in 3 images of 2"):
        DocumentFrequencies(2, {"a": 3})
    with pytest.raises(ValueError, match="at least 1 image"):
        DocumentFrequencies(0, {})
    np.savez(tmp_path / "other.npz", mu=np.zeros(2))
    with pytest.raises(ValueError, match="no document frequencies; its arrays: mu"):
        DocumentFrequencies.load(tmp_path / "other.npz")
    np.savez(tmp_path / "cut.npz", images=3, ngrams=np.frombuffer(b"a\nb", np.uint8), counts=np.array([1]))
    with pytest.raises(ValueError, match="2 n-grams but 1 counts"):
        DocumentFrequencies.load(tmp_path / "cut.npz")


def test_rouge_takes_its_two_maxima_from_different_references():
    """'a b c d': precision 3/4 from the long reference, recall 1 from the short one."""
    score = rouge_l(["a b c d"], [["a b x x x x x c", "d"]]).values["rouge_l"]
    precision, recall = 3 / 4, 1.0
    assert score == pytest.approx(2.44 * precision * recall / (recall + 1.44 * precision), rel=1e-12)


def test_rouge_splits_at_single_blanks():
    assert rouge_l([""], [[""]]).values["rouge_l"] == 1.0
    assert rouge_l([""], [["a"]]).values["rouge_l"] == 0.0
    assert rouge_l(["a  b"], [["a b"]]).values["rouge_l"] < 1.0


def test_a_common_subsequence_longer_than_a_machine_word_is_found():
    words = [f"w{i}" for i in range(100)]
    reference = " ".join(word for i, word in enumerate(words) if i % 7)
    score = rouge_l([" ".join(words)], [[reference]]).values["rouge_l"]
    precision = len(reference.split()) / 100
    assert score == pytest.approx(2.44 * precision / (1 + 1.44 * precision), rel=1e-12)


@pytest.mark.parametrize("score", [lambda c, r: bleu(CountedCaptions.of(c, r)), rouge_l])
def test_no_captions_uneven_lists_and_missing_references_are_refused(score):
    with pytest.raises(ValueError, match="no captions to score"):
        score([], [])
    with pytest.raises(ValueError, match="2 candidates for 1 lists"):
        score(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match="image 1 has no references"):
        score(["a", "b"], [["a"], []])
    with pytest.raises(TypeError, match="references of image 0 are one string"):
        score(["a"], ["a b"])
