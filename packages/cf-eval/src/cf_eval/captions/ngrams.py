"""Words as numbers, and n-gram counts of all captions at once; what BLEU and CIDEr-D share.

All runs of four words are sorted once, which numbers the 1-grams to 4-grams: a new n-gram begins where the first n
words change. Counting is sorting too: by image, then n-gram, then caption, the candidate first. What candidate and
references of an image share then stands side by side.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, count

import numpy as np
from jaxtyping import Bool, Int64

ORDERS = 4
# of a positive int64
NUMBER_BITS = 63


@dataclass(frozen=True)
class NgramCounts:
    """How often each n-gram of one order stands in each sentence: r entries in g groups, a group an n-gram of an image.

    ngram: its id, the same in all images. group: numbered from 0 in order; the candidate's entry, if any, is its first.
    starts: the first entry of each group. example: of each of p n-grams a place in the flat words where it stands.
    """

    sentence: Int64[np.ndarray, "r"]
    ngram: Int64[np.ndarray, "r"]
    count: Int64[np.ndarray, "r"]
    group: Int64[np.ndarray, "r"]
    starts: Int64[np.ndarray, "g"]
    example: Int64[np.ndarray, "p"]


@dataclass(frozen=True)
class CountedCaptions:
    """Candidates and references of m images: sentence i < m is the candidate of image i, the references follow.

    lengths, image: (s,) words in each sentence, and the image it belongs to. flat: the words of all sentences, one
    after the other, as ids of `words`. orders: the counts of 1-grams to 4-grams.
    """

    images: int
    words: tuple[str, ...]
    flat: Int64[np.ndarray, "w"]
    lengths: Int64[np.ndarray, "s"]
    image: Int64[np.ndarray, "s"]
    orders: tuple[NgramCounts, ...]

    @staticmethod
    def of(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> "CountedCaptions":
        """Count rows of tokens, one candidate and at least one reference an image. Rows are split at any blanks.

        ValueError for no images, for lists of different length, and for an image without references.
        """
        check_pairs(candidates, references)
        words, flat, lengths = _intern([*candidates, *chain.from_iterable(references)])
        per_image = np.fromiter(map(len, references), np.int64, len(references))
        images = np.arange(len(candidates))
        image = np.concatenate([images, np.repeat(images, per_image)])
        # the candidate is 0, the references of an image 1, 2, ...
        first = len(candidates) + per_image.cumsum() - per_image
        place = np.maximum(np.arange(len(lengths)) - first[image] + 1, 0)
        orders = _count(flat, lengths, image, place, first)
        return CountedCaptions(len(candidates), words, flat, lengths, image, orders)

    def texts(self) -> list[list[str]]:
        """Every n-gram in words, one list for each order; "" for ids of runs that the end of a sentence cut short."""
        words = [self.words[i] for i in self.flat.tolist()]
        ends = np.repeat(self.lengths.cumsum(), self.lengths)
        return [
            [
                " ".join(words[at : at + n]) if at + n <= end else ""
                for at, end in zip(order.example.tolist(), ends[order.example].tolist(), strict=True)
            ]
            for n, order in enumerate(self.orders, start=1)
        ]


def check_pairs(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """One candidate and at least one reference for each image, or an error that names the first that lacks one."""
    if not candidates:
        raise ValueError("no captions to score: the list of candidates is empty")
    if len(candidates) != len(references):
        raise ValueError(
            f"{len(candidates)} candidates for {len(references)} lists of references; give one each for every image"
        )
    for i, rows in enumerate(references):
        if isinstance(rows, str):
            raise TypeError(f"references of image {i} are one string, {rows!r}; give a list of captions")
        if not rows:
            raise ValueError(f"image {i} has no references; leave it out or add some")


def _intern(rows: Sequence[str]) -> tuple[tuple[str, ...], Int64[np.ndarray, "w"], Int64[np.ndarray, "s"]]:
    """The different words, all rows as ids of them, and the number of words in each row."""
    # one split of all rows, with a mark no row has between them, is much faster than a split of each
    mark = "\0"
    while (text := f" {mark} ".join(rows)).count(mark) >= len(rows):
        mark += "\0"
    ids: defaultdict[str, int] = defaultdict(count().__next__)
    ids[mark]  # is 0
    words = text.split()
    marked = np.fromiter(map(ids.__getitem__, words), np.int64, len(words))
    ends = np.append(np.flatnonzero(marked == 0), len(marked))
    return tuple(ids)[1:], marked[marked > 0] - 1, np.diff(ends, prepend=-1) - 1


def _count(
    flat: Int64[np.ndarray, "w"],
    lengths: Int64[np.ndarray, "s"],
    image: Int64[np.ndarray, "s"],
    place: Int64[np.ndarray, "s"],
    first: Int64[np.ndarray, "m"],
) -> tuple[NgramCounts, ...]:
    """place: which caption of its image a sentence is. first: the first reference of each image."""
    # words from here to the end of the sentence
    left = np.repeat(lengths.cumsum(), lengths) - np.arange(len(flat))
    image, place = np.repeat(image, lengths), np.repeat(place, lengths)
    captions = int(place.max(initial=0)).bit_length()
    counts = []
    for n, (ngram, example) in enumerate(_number(flat, left), start=1):
        at = np.flatnonzero(left >= n)
        kinds = len(example).bit_length()
        keys, count = _runs(np.sort((image[at] << kinds | ngram[at]) << captions | place[at]))
        which, group_key = keys & ((1 << captions) - 1), keys >> captions
        starts = np.flatnonzero(_changes(group_key))
        group = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(keys)))
        of_image = group_key >> kinds
        sentence = np.where(which == 0, of_image, first[of_image] + which - 1)
        counts.append(NgramCounts(sentence, group_key & ((1 << kinds) - 1), count, group, starts, example))
    return tuple(counts)


def _number(
    flat: Int64[np.ndarray, "w"], left: Int64[np.ndarray, "w"]
) -> list[tuple[Int64[np.ndarray, "w"], Int64[np.ndarray, "p"]]]:
    """For each order, the id of the n-gram that begins at each word, and where each id is found.

    Where a sentence is too short for n words there is an id too, of a run that nobody else has a use for.
    """
    # word ids from 1; 0 where the sentence has ended
    padded = np.append(flat + 1, np.zeros(ORDERS, np.int64))
    following = [padded[k : k + len(flat)] * (left > k) for k in range(ORDERS)]
    bits = int(flat.max(initial=0) + 1).bit_length()
    if bits * ORDERS <= NUMBER_BITS:
        # four words in one number: its upper part is the n-gram
        packed = following[0]
        for words in following[1:]:
            packed = packed << bits | words
        order = np.argsort(packed)
        packed = packed[order]
        changes = [_changes(packed >> bits * (ORDERS - n)) for n in range(1, ORDERS + 1)]
    else:
        order = np.lexsort(following[::-1])
        changes = list(accumulate((_changes(words[order]) for words in following), np.logical_or))
    numbered = []
    for changed in changes:
        ids = np.empty(len(flat), np.int64)
        ids[order] = changed.cumsum() - 1
        numbered.append((ids, order[changed]))
    return numbered


def _runs(keys: Int64[np.ndarray, "w"]) -> tuple[Int64[np.ndarray, "r"], Int64[np.ndarray, "r"]]:
    """Each key of a sorted list once, and how often it is there."""
    starts = np.flatnonzero(_changes(keys))
    return keys[starts], np.diff(starts, append=len(keys))


def _changes(keys: Int64[np.ndarray, "w"]) -> Bool[np.ndarray, "w"]:
    """Where a number differs from the one before; the first does."""
    changed = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=changed[1:])
    return changed
