"""METEOR 1.5: the alignment of words by the authors' jar, the score by its formula here.

    P = (d sum w_i c_i + (1-d) sum w_i f_i) / (d content words + (1-d) function words)       of the candidate; R of the
    F = P R / (alpha P + (1-alpha) R)                                                          reference alike
    METEOR = F (1 - gamma (chunks / matched words)^beta)

c_i and f_i are matched content and function words; i: exact, stem, synonym, paraphrase. One chunk that covers both
sides counts as none. A corpus value puts summed statistics into the formula. English, tuned to rank
(Denkowski and Lavie 2014), as `-l en -norm`; CrossFlow table 4. Of several references the jar takes the best.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from cf_eval.captions.java import PLAIN_LOCALE, JavaProcess, find_jar, find_java
from cf_eval.captions.ngrams import check_pairs
from cf_eval.captions.ptb_tokenizer import one_line
from cf_eval.captions.scores import Scores

ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
INSIDE = "meteor/meteor-1.5.jar"
STATISTICS = 23


class Meteor:
    """Scores rows of tokens with the METEOR 1.5 jar. One Java process, started by the first score (about 20 s).

    jar: meteor-1.5.jar with its data folder beside it, or None for the one in pycocoevalcap. RuntimeError without a
    Java that runs, FileNotFoundError without the jar, both before any work. Use it as a context manager, or `close` it.
    """

    def __init__(self, jar: str | Path | None = None, java: str | Path = "java", memory: str = "2G") -> None:
        path = find_jar(jar, INSIDE, "METEOR 1.5")
        flags = [f"-Xmx{memory}", *PLAIN_LOCALE, "-jar", str(path)]
        self.process = JavaProcess([find_java(java), *flags, "-", "-", "-stdio", "-l", "en", "-norm"])

    def __call__(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
        """METEOR of each caption and of all, 0 to 1.

        statistics: (m, 23), the jar's, settled: lengths, function words, matches by kind, chunks, matched words.
        """
        check_pairs(candidates, references)
        pairs = zip(candidates, references, strict=True)
        statistics = settled(np.array([self._statistics(candidate, rows) for candidate, rows in pairs]))
        return Scores(("meteor",), meteor_formula(statistics), statistics, meteor_formula)

    def _statistics(self, candidate: str, references: Sequence[str]) -> list[float]:
        line = " ||| ".join(["SCORE", *map(_field, references), _field(candidate)])
        answer = self.process.ask(line)
        numbers = answer.split()
        if len(numbers) != STATISTICS:
            raise RuntimeError(f"METEOR answered {answer!r} to {line!r}; {STATISTICS} numbers were expected")
        return [float(number) for number in numbers]

    def close(self) -> None:
        """End the Java process."""
        self.process.close()

    def __enter__(self) -> "Meteor":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def settled(statistics: Float64[np.ndarray, "m 23"]) -> Float64[np.ndarray, "m 23"]:
    """The jar's statistics with no chunk for captions that match a reference as a whole, as the jar adds them up."""
    length, chunks, covered = statistics[:, 0:2], statistics[:, 20], statistics[:, 21:23]
    whole = (chunks == 1) & (covered == length).all(1)
    return np.column_stack([statistics[:, :20], np.where(whole, 0.0, chunks), covered])


def meteor_formula(statistics: Float64[np.ndarray, "r 23"]) -> Float64[np.ndarray, "r 1"]:
    """METEOR from settled statistics of a caption, or from their sum over captions."""
    length, functions = statistics[:, 0:2], statistics[:, 2:4]
    # by kind of match: content words of candidate and reference, then function words of both
    matched = np.einsum("rksj,k->rsj", statistics[:, 4:20].reshape(-1, 4, 2, 2), WEIGHTS)
    chunks, covered = statistics[:, 20], statistics[:, 21:23]
    weighed = DELTA * matched[:, 0] + (1 - DELTA) * matched[:, 1]
    share = _ratio(weighed, DELTA * (length - functions) + (1 - DELTA) * functions)
    precision, recall = share[:, 0], share[:, 1]
    f = _ratio(precision * recall, ALPHA * precision + (1 - ALPHA) * recall)
    penalty = GAMMA * _ratio(chunks, covered.mean(1)) ** BETA
    return (f * (1 - penalty))[:, None]


def _ratio(a: Float64[np.ndarray, "*n"], b: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
    """a / b, and 0 where there is nothing to divide by."""
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def _field(row: str) -> str:
    """A row the jar reads as one field."""
    return " ".join(word for word in one_line(row).replace("|||", " ").split(" ") if word)
