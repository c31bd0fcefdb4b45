"""CIDEr-D, the variant COCO reports as CIDEr: tf-idf vectors of n-grams, clipped, with a penalty on length.

    g_n(s)  = count of each n-gram in s, times ln(#images) - ln(max(1, df))     df: images whose references have it
    sim_n   = sum min(g_n(c), g_n(r)) g_n(r) / (|g_n(c)| |g_n(r)|) exp(-(b_c - b_r)^2 / (2 sigma^2))
    CIDEr-D = 10 mean over references and over n = 1..4 of sim_n

b is the number of bigrams (length - 1, and 0 for one word), sigma = 6. (Vedantam, Zitnick and Parikh 2015; CrossFlow
table 4) With one image every idf is ln 1 = 0, and so is the score: pass document frequencies of a larger corpus.
"""

import numpy as np
from jaxtyping import Float64

from cf_eval.captions.document_frequency import DocumentFrequencies, count_documents
from cf_eval.captions.ngrams import CountedCaptions, NgramCounts
from cf_eval.captions.scores import Scores, mean_score

SIGMA = 6.0


def cider_d(captions: CountedCaptions, frequencies: DocumentFrequencies | None = None) -> Scores:
    """CIDEr-D, 0 to 10, for each caption; the corpus value is their mean.

    frequencies: from another corpus; None counts in these captions' references, as published numbers do.
    """
    images = captions.images if frequencies is None else frequencies.images
    documents = count_documents(captions) if frequencies is None else frequencies.look_up(captions)
    total = np.zeros(captions.images)
    for order, df in zip(captions.orders, documents, strict=True):
        idf = np.log(float(images)) - np.log(np.maximum(1.0, df))
        total += _similarity(captions, order, order.count * idf[order.ngram])
    per_image = np.bincount(captions.image[captions.images :], minlength=captions.images)
    return mean_score("cider_d", 10.0 * total / len(captions.orders) / per_image)


def _similarity(
    captions: CountedCaptions, order: NgramCounts, weight: Float64[np.ndarray, "r"]
) -> Float64[np.ndarray, "m"]:
    """Of each candidate with its references, summed over them, for n-grams of one order."""
    m, sentences = captions.images, len(captions.lengths)
    norm = np.sqrt(np.bincount(order.sentence, weight**2, minlength=sentences))
    # the candidate's entry is the first of its group; where it has none, nothing is shared
    in_candidate = np.where(order.sentence < m, weight, 0.0)[order.starts][order.group]
    shared = np.minimum(in_candidate, weight) * weight
    dot = np.bincount(order.sentence, shared, minlength=sentences)[m:]
    image = captions.image[m:]
    norms = norm[image] * norm[m:]
    bigrams = np.maximum(captions.lengths - 1, 0)
    delta = bigrams[image] - bigrams[m:]
    # where a norm is 0 there is nothing to divide: the product is 0 too
    cosine = dot / np.where(norms > 0, norms, 1.0)
    return np.bincount(image, cosine * np.exp(-(delta**2) / (2 * SIGMA**2)), minlength=m)
