"""ROUGE-L of COCO's caption evaluation: the longest common subsequence of words, against several references.

    P = max over references of lcs / words of the candidate,   R = max of lcs / words of the reference
    ROUGE-L = (1 + beta^2) P R / (R + beta^2 P),   beta = 1.2

The two maxima may come from different references. Rows are split at single blanks, as published numbers are: two
blanks hold an empty word, and an empty candidate against an empty reference scores 1. (Lin 2004; CrossFlow table 4)
"""

from collections.abc import Sequence

import numpy as np

from cf_eval.captions.ngrams import check_pairs
from cf_eval.captions.scores import Scores, mean_score

BETA = 1.2


def rouge_l(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    """ROUGE-L of rows of tokens, 0 to 1, for each caption; the corpus value is their mean."""
    check_pairs(candidates, references)
    pairs = zip(candidates, references, strict=True)
    return mean_score("rouge_l", np.array([_one(candidate, rows) for candidate, rows in pairs]))


def _one(candidate: str, references: Sequence[str]) -> float:
    words = candidate.split(" ")
    places = _places(words)
    precision = recall = 0.0
    for reference in references:
        row = reference.split(" ")
        common = _common_length(places, len(words), row)
        precision, recall = max(precision, common / len(words)), max(recall, common / len(row))
    if not precision or not recall:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _places(words: Sequence[str]) -> dict[str, int]:
    """Of each word, the places where it stands, as the bits of a number."""
    places: dict[str, int] = {}
    for i, word in enumerate(words):
        places[word] = places.get(word, 0) | 1 << i
    return places


def _common_length(places: dict[str, int], length: int, row: Sequence[str]) -> int:
    """Length of the longest common subsequence, a row of the dynamic program in one number (Hyyrö 2004).

    A zero bit is a place where the length grows by one.
    """
    every = (1 << length) - 1
    flat = every
    for at in [places[word] for word in row if word in places]:
        here = flat & at
        flat = (flat + here) | (flat - here)
    return length - (flat & every).bit_count()
