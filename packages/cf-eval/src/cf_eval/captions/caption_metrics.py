"""Captions as a stream: images added in batches, on one process or many, scored once at the end."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cf_eval.captions.coco_files import ImageId
from cf_eval.captions.protocol import CaptionProtocol, Tools
from cf_eval.captions.ptb_tokenizer import one_line
from cf_eval.captions.score import CaptionScores, score_rows
from cf_eval.distributed import Group, all_ranks

Candidates = Mapping[ImageId, str] | Mapping[ImageId, Sequence[str]] | Sequence[str]
References = Mapping[ImageId, str] | Mapping[ImageId, Sequence[str]] | Sequence[str] | Sequence[Sequence[str]]


@dataclass(frozen=True)
class Sample:
    """The captions of one image as they came."""

    candidate: str
    references: tuple[str, ...]


def score_captions(
    candidates: Candidates, references: References, protocol: CaptionProtocol | None = None
) -> CaptionScores:
    """Score one caption an image against its references.

    candidates, references: both by image id, or both lists in the same order; of each image a caption or a list of
    them (of candidates a list of one). protocol: None is CaptionProtocol(), COCO's. Errors come before counting or Java
    start: TypeError for what is not text, ValueError for no images, an image without references, and ids that only one
    side has, which it names.
    """
    metrics = CaptionMetrics(protocol)
    if isinstance(candidates, Mapping) and isinstance(references, Mapping):
        ids = _same_ids(candidates, references)
        metrics.add_batch([candidates[i] for i in ids], [references[i] for i in ids], ids)
    elif isinstance(candidates, Mapping) or isinstance(references, Mapping):
        raise TypeError("give candidates and references both by image id, or both as lists in the same order")
    else:
        metrics.add_batch(candidates, references)
    try:
        return metrics.compute()
    finally:
        metrics.close()


class CaptionMetrics:
    """Scores a stream of captions. Mergeable: captions are kept as text, as CIDEr-D weighs words by the whole corpus.

    An id that comes again with the same captions (a padding sampler's) is counted once, with others it is an error.
    Either all images have ids or none; with ids, the order in which images came changes nothing.

    >>> metrics = CaptionMetrics(); metrics.add_batch(captions, references, ids); metrics.compute()["cider_d"]
    """

    def __init__(self, protocol: CaptionProtocol | None = None) -> None:
        self.protocol = protocol or CaptionProtocol()
        self.tools = Tools(self.protocol)
        self.by_id: dict[ImageId, Sample] = {}
        self.unnamed: list[Sample] = []
        self.dropped = 0

    def add_batch(
        self,
        candidates: Sequence[str | Sequence[str]],
        references: Sequence[str | Sequence[str]],
        ids: Iterable[ImageId] | None = None,
    ) -> None:
        """Add images: of each its caption, its references and, where images may come twice, an id.

        Nothing is added when anything is wrong: TypeError for what is not text, ValueError for lists of different
        lengths, an image without references, an id that came before with other captions.
        """
        names = range(len(self.unnamed), len(self.unnamed) + len(candidates)) if ids is None else list(ids)
        if not len(candidates) == len(references) == len(names):
            raise ValueError(
                f"{len(candidates)} candidates, {len(references)} lists of references and {len(names)} ids; "
                "give one of each for every image"
            )
        triples = zip(names, candidates, references, strict=True)
        samples = [one_sample(name, candidate, rows) for name, candidate, rows in triples]
        if ids is None:
            self._add([], samples)
        else:
            self._add(zip(names, samples, strict=True), [])

    def merge(self, *others: "CaptionMetrics") -> "CaptionMetrics":
        """The metrics of all images together, as if one process had seen them."""
        merged = CaptionMetrics(self.protocol)
        for part in (self, *others):
            merged._add(part.by_id.items(), part.unnamed)
            merged.dropped += part.dropped
        return merged

    def gathered(self, group: Group | None = None) -> "CaptionMetrics":
        """The metrics of all processes of a torch.distributed group, on each of them. Every process must call it.

        Without torch.distributed it is a copy, so that one script runs on one process and on many.
        """
        merged = CaptionMetrics(self.protocol)
        for by_id, unnamed, dropped in all_ranks((self.by_id, self.unnamed, self.dropped), group):
            merged._add(by_id.items(), unnamed)
            merged.dropped += dropped
        return merged

    def compute(self) -> CaptionScores:
        """Tokenize and score everything added. ValueError when that is nothing."""
        if not self.by_id and not self.unnamed:
            raise ValueError("no captions were added; call add_batch first")
        # numbers before names, each in their order: the same whichever process had which image
        ids = sorted(self.by_id, key=_order) if self.by_id else list(range(len(self.unnamed)))
        samples = [self.by_id[i] for i in ids] if self.by_id else self.unnamed
        rows = self.tools.tokenize([s.candidate for s in samples], [s.references for s in samples])
        return score_rows(ids, rows, self.protocol, self.tools, {"duplicates_dropped": self.dropped})

    def close(self) -> None:
        """End the Java programs that were started."""
        self.tools.close()

    def _add(self, named: Iterable[tuple[ImageId, Sample]], unnamed: Sequence[Sample]) -> None:
        fresh: dict[ImageId, Sample] = {}
        came = 0
        for name, sample in named:
            known = self.by_id.get(name) or fresh.setdefault(name, sample)
            if known != sample:
                raise ValueError(
                    f"image {name!r} came before with other captions; give every image its own id"
                )
            came += 1
        if (self.by_id or fresh) and (self.unnamed or unnamed):
            raise ValueError("some images have ids and some have none; give all of them ids, or none")
        self.by_id |= fresh
        self.unnamed += unnamed
        self.dropped += came - len(fresh)


def _order(name: ImageId) -> tuple[bool, int, str]:
    return (True, 0, name) if isinstance(name, str) else (False, name, "")


def one_sample(name: ImageId, candidate: object, references: object) -> Sample:
    """The captions of one image, checked. TypeError and ValueError name the image."""
    captions = _captions(name, "candidate", candidate)
    if len(captions) != 1:
        raise ValueError(f"image {name!r} has {len(captions)} candidates; give one")
    rows = _captions(name, "references", references)
    if not rows:
        raise ValueError(f"image {name!r} has no references; leave it out or add some")
    return Sample(captions[0], rows)


def _captions(name: ImageId, what: str, given: object) -> tuple[str, ...]:
    captions = (given,) if isinstance(given, str) else given
    if not isinstance(captions, Sequence):
        raise TypeError(f"{what} of image {name!r}: {given!r} is no caption and no list of captions")
    try:
        return tuple(map(one_line, captions))
    except TypeError as wrong:
        raise TypeError(f"{what} of image {name!r}: {wrong}") from None


def _same_ids(
    candidates: Mapping[ImageId, str] | Mapping[ImageId, Sequence[str]],
    references: Mapping[ImageId, str] | Mapping[ImageId, Sequence[str]],
) -> list[ImageId]:
    sides = {"references": candidates.keys() - references, "candidate": references.keys() - candidates}
    for what, lacking in sides.items():
        if lacking:
            named = ", ".join(repr(i) for i in sorted(lacking, key=_order)[:5])
            raise ValueError(
                f"{len(lacking)} images have no {what}: {named}{', ...' if len(lacking) > 5 else ''}; "
                "give candidates and references of the same images"
            )
    return list(candidates)
