"""BLEU-1 to BLEU-4 as COCO's caption evaluation computes them.

    p_n    = (matched n-grams + 1e-15) / (n-grams + 1e-9)      matches clipped at the most in any one reference
    BLEU-n = (p_1 ... p_n)^(1/n) exp(min(0, 1 - 1/ratio))      ratio = (length + 1e-15) / (reference length + 1e-9)

The reference length is that of the reference closest in length; of two as close, the shorter. A corpus value puts the
sums over captions into the formula; it is not the mean of the captions' values.
Papineni et al. 2002; CrossFlow table 4.
"""

import numpy as np
from jaxtyping import Float64

from cf_eval.captions.ngrams import ORDERS, CountedCaptions
from cf_eval.captions.scores import Scores

TINY, SMALL = 1e-15, 1e-9
NAMES = tuple(f"bleu_{n}" for n in range(1, ORDERS + 1))


def bleu(captions: CountedCaptions) -> Scores:
    """BLEU-1 to BLEU-4, for each caption and for all; 0 to 1. An empty candidate scores 0.

    statistics: (m, 10), the matched n-grams of the four orders, the candidate's n-grams, its length, the reference's.
    """
    m = captions.images
    length = captions.lengths[:m]
    matched = np.zeros((m, ORDERS))
    for n, order in enumerate(captions.orders):
        if not len(order.starts):
            continue
        # the candidate's count stands first in a group; it is 0 where the candidate lacks the n-gram
        in_candidate = np.where(order.sentence < m, order.count, 0)[order.starts]
        most = np.maximum.reduceat(np.where(order.sentence < m, 0, order.count), order.starts)
        image = captions.image[order.sentence[order.starts]]
        matched[:, n] = np.bincount(image, np.minimum(in_candidate, most), minlength=m)
    guessed = np.maximum(length[:, None] - np.arange(ORDERS), 0)
    statistics = np.column_stack([matched, guessed, length, _closest_length(captions)]).astype(np.float64)
    return Scores(NAMES, _formula(statistics), statistics, _formula)


def _closest_length(captions: CountedCaptions) -> Float64[np.ndarray, "m"]:
    m = captions.images
    of_references, image = captions.lengths[m:], captions.image[m:]
    distance = np.abs(of_references - captions.lengths[image])
    # one number to compare by: distance first, then length
    base = int(captions.lengths.max(initial=0)) + 1
    starts = np.flatnonzero(np.diff(image, prepend=-1))
    closest = np.minimum.reduceat(distance * base + of_references, starts) % base
    return closest.astype(np.float64)


def _formula(sums: Float64[np.ndarray, "r 10"]) -> Float64[np.ndarray, "r 4"]:
    matched, guessed, length, reference = sums[:, :4], sums[:, 4:8], sums[:, 8], sums[:, 9]
    precision = np.cumprod((matched + TINY) / (guessed + SMALL), axis=1)
    ratio = (length + TINY) / (reference + SMALL)
    brevity = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    return precision ** (1 / np.arange(1, ORDERS + 1)) * brevity[:, None]
