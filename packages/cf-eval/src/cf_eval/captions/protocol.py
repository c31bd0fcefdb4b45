"""What moves a caption score beside its formula: tokenizer, reference corpus, tools. Checked before any work starts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cf_eval.captions.bleu import bleu
from cf_eval.captions.cider import cider_d
from cf_eval.captions.document_frequency import DocumentFrequencies
from cf_eval.captions.meteor import Meteor
from cf_eval.captions.ngrams import CountedCaptions
from cf_eval.captions.ptb_jar import JarTokenizer
from cf_eval.captions.ptb_tokenizer import one_line, tokenize
from cf_eval.captions.rouge import rouge_l
from cf_eval.captions.scores import Scores
from cf_eval.captions.spice import Spice


@dataclass(frozen=True)
class CaptionProtocol:
    """How captions are scored; the default is COCO's caption evaluation (pycocoevalcap) in plain Python.

    metrics: names from METRICS. tokenizer: a name from TOKENIZERS; "python" and "java" give the same tokens but for the
    differences listed in ptb_tokenizer, "none" splits at blanks what is tokens already. frequencies: document
    frequencies for CIDEr-D of another corpus; None counts in the references. confidence: level of bootstrap intervals
    (0.95), None for none; resamples and seed are theirs. java and the jars: paths; None looks for pycocoevalcap's.
    """

    metrics: tuple[str, ...] = ("bleu", "cider_d", "rouge_l")
    tokenizer: str = "python"
    frequencies: DocumentFrequencies | None = None
    confidence: float | None = None
    resamples: int = 1000
    seed: int = 0
    java: str | Path = "java"
    ptb_jar: str | Path | None = None
    meteor_jar: str | Path | None = None
    spice_jar: str | Path | None = None

    def __post_init__(self) -> None:
        if not self.metrics:
            raise ValueError(f"no metrics were asked for; known: {', '.join(METRICS)}")
        for name in self.metrics:
            if name not in METRICS:
                raise ValueError(f"unknown caption metric {name!r}; known: {', '.join(METRICS)}")
        if self.tokenizer not in TOKENIZERS:
            raise ValueError(f"unknown tokenizer {self.tokenizer!r}; known: {', '.join(TOKENIZERS)}")
        if self.confidence is not None and not 0 < self.confidence < 1:
            raise ValueError(f"confidence must lie between 0 and 1, got {self.confidence}; 0.95 is usual")
        if self.resamples < 2:
            raise ValueError(f"resamples must be at least 2, got {self.resamples}; 1000 is usual")

    def describe(self) -> str:
        """One line that goes with the numbers."""
        corpus = "the references" if self.frequencies is None else f"{self.frequencies.images} other images"
        parts = {
            "bleu": "BLEU: closest reference length",
            "cider_d": f"CIDEr-D: sigma 6, document frequencies of {corpus}",
            "rouge_l": "ROUGE-L: beta 1.2",
            "meteor": "METEOR: 1.5 -l en -norm",
            "spice": "SPICE: 1.0",
        }
        chosen = [parts[name] for name in dict.fromkeys(self.metrics)]
        return "; ".join([f"COCO captions, tokens: {TOKENIZERS[self.tokenizer]}", *chosen])


TOKENIZERS = {
    "python": "PTB 3.4.1 rules in Python, lower case, no punctuation",
    "java": "Stanford PTB 3.4.1 jar, lower case, no punctuation",
    "none": "as given, split at blanks",
}


@dataclass(frozen=True)
class Rows:
    """Tokens joined by blanks: a row for the candidate of each image, and one for each of its references."""

    candidates: Sequence[str]
    references: Sequence[Sequence[str]]

    @cached_property
    def counted(self) -> CountedCaptions:
        return CountedCaptions.of(self.candidates, self.references)


class Tools:
    """The Java programs a protocol needs, found and tried; none is started yet."""

    def __init__(self, protocol: CaptionProtocol) -> None:
        java, metrics = protocol.java, protocol.metrics
        self.frequencies = protocol.frequencies
        self.tokens = _tokenizer(protocol)
        self.meteor = Meteor(protocol.meteor_jar, java) if "meteor" in metrics else None
        self.spice = Spice(protocol.spice_jar, java) if "spice" in metrics else None

    def tokenize(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Rows:
        """Candidates and references as rows of tokens."""
        found = iter(self.tokens([caption for rows in references for caption in rows]))
        return Rows(self.tokens(candidates), [[next(found) for _ in rows] for rows in references])

    def close(self) -> None:
        """End what was started."""
        if self.meteor is not None:
            self.meteor.close()


def _tokenizer(protocol: CaptionProtocol) -> Callable[[Sequence[str]], list[str]]:
    if protocol.tokenizer == "java":
        jar = JarTokenizer(protocol.ptb_jar, protocol.java)
        return lambda captions: [" ".join(tokens) for tokens in jar(captions)]
    if protocol.tokenizer == "python":
        return lambda captions: [" ".join(tokenize(caption)) for caption in captions]
    return lambda captions: [one_line(caption) for caption in captions]


def _meteor(rows: Rows, tools: Tools) -> Scores:
    assert tools.meteor is not None  # Tools made one: the protocol asks for it
    return tools.meteor(rows.candidates, rows.references)


def _spice(rows: Rows, tools: Tools) -> Scores:
    assert tools.spice is not None
    return tools.spice(rows.candidates, rows.references)


METRICS: dict[str, Callable[[Rows, Tools], Scores]] = {
    "bleu": lambda rows, tools: bleu(rows.counted),
    "cider_d": lambda rows, tools: cider_d(rows.counted, tools.frequencies),
    "rouge_l": lambda rows, tools: rouge_l(rows.candidates, rows.references),
    "meteor": _meteor,
    "spice": _spice,
}
