"""In how many images of a corpus each n-gram is said: what CIDEr-D weighs words by.

Scores of one model's captions depend on the corpus these are counted in. Published COCO numbers count in the
references that are scored. A table of its own makes single images and small sets comparable.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from cf_eval.captions.ngrams import CountedCaptions
from cf_eval.files import replaced


@dataclass(frozen=True)
class DocumentFrequencies:
    """images: how many images were counted. counts: n-gram, words joined by blanks, to the number of images with it."""

    images: int
    counts: Mapping[str, int]

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"document frequencies are of at least 1 image, got {self.images}")
        if self.counts and max(self.counts.values()) > self.images:
            ngram = max(self.counts, key=self.counts.__getitem__)
            raise ValueError(
                f"{ngram!r} is counted in {self.counts[ngram]} images of {self.images}; count an image once"
            )

    @staticmethod
    def of(references: Sequence[Sequence[str]]) -> "DocumentFrequencies":
        """Count rows of tokens, a list for each image."""
        captions = CountedCaptions.of([""] * len(references), references)
        counts = {}
        for texts, df in zip(captions.texts(), count_documents(captions), strict=True):
            # runs cut short by the end of a caption are in no document
            counts.update((text, int(n)) for text, n in zip(texts, df, strict=True) if n)
        return DocumentFrequencies(len(references), counts)

    def look_up(self, captions: CountedCaptions) -> list[Float64[np.ndarray, "p"]]:
        """The counts of every n-gram of these captions, 0 where there is none, a list for each order."""
        return [
            np.array([self.counts.get(text, 0) for text in texts], dtype=np.float64)
            for texts in captions.texts()
        ]

    def save(self, path: str | Path) -> None:
        """Write an npz: images, ngrams (UTF-8, a line each), counts. Never leaves half a file."""
        text = "\n".join(self.counts).encode()
        with replaced(path) as partial, partial.open("wb") as file:
            np.savez_compressed(
                file,
                images=np.int64(self.images),
                ngrams=np.frombuffer(text, np.uint8),
                counts=np.fromiter(self.counts.values(), np.int64, len(self.counts)),
            )

    @staticmethod
    def load(path: str | Path) -> "DocumentFrequencies":
        """What `save` wrote. ValueError for another file."""
        with np.load(path) as file:
            if not {"images", "ngrams", "counts"} <= set(file):
                raise ValueError(f"{path} has no document frequencies; its arrays: {', '.join(file)}")
            text = file["ngrams"].tobytes().decode()
            counts = file["counts"].tolist()
            images = int(file["images"])
        ngrams = text.split("\n") if text else []
        if len(ngrams) != len(counts):
            raise ValueError(f"{path} holds {len(ngrams)} n-grams but {len(counts)} counts; save it again")
        return DocumentFrequencies(images, dict(zip(ngrams, counts, strict=True)))


def count_documents(captions: CountedCaptions) -> list[Float64[np.ndarray, "p"]]:
    """In how many images' references each n-gram stands, a list for each order."""
    documents = []
    for order in captions.orders:
        # a group is an n-gram of an image; its last entry is a reference's if there is one
        ends = np.append(order.starts[1:], len(order.ngram)) - 1
        said = order.ngram[ends[order.sentence[ends] >= captions.images]] if len(order.ngram) else order.ngram
        documents.append(np.bincount(said, minlength=len(order.example)).astype(np.float64))
    return documents
