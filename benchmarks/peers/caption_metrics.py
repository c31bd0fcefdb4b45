"""Caption metrics beside pycocoevalcap: BLEU, CIDEr-D and ROUGE-L on the same tokens; the PTB tokenizer beside the jar.

    OMP_NUM_THREADS=1 uv run --no-sync python benchmarks/peers/caption_metrics.py \\
        --references captions_val2017.json.gz --repeats 9 --out benchmarks/results/caption_metrics.json

COCO val2017: of each image five references, and as its candidate the first caption of the image before, or for every
third its own (a corpus with good and bad captions). Thread CPU time on one thread; ours and the peer are interleaved
and the ratio is taken within each repeat, so that a busy machine moves both; the figures are medians. Tokenizers are
timed by the wall clock, from captions to tokens: the jar's call starts a process, ours begins with empty memories.
`largest_difference` is between all corpus and per-caption values. Needs pycocoevalcap, and Java for the tokenizer.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cf_eval.captions.bleu import bleu
from cf_eval.captions.cider import cider_d
from cf_eval.captions.coco_files import read_references
from cf_eval.captions.ngrams import CountedCaptions
from cf_eval.captions.ptb_jar import JarTokenizer
from cf_eval.captions.ptb_tokenizer import forget, tokenize
from cf_eval.captions.rouge import rouge_l
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from record import write_record


@dataclass(frozen=True)
class Row:
    """Medians over repeats; ratio: the peer's seconds over ours."""

    what: str
    captions: int
    ours_s: float
    peer_s: float
    ratio: float
    largest_difference: float | None


Rows = tuple[list[str], list[list[str]]]


def corpus(path: Path, images: int) -> Rows:
    """Candidates and five references of each image, as rows of tokens."""
    references = [rows[:5] for rows in read_references(path).values()][:images]
    tokens = [[" ".join(tokenize(caption)) for caption in rows] for rows in references]
    candidates = [(rows if i % 3 else tokens[i - 1])[0] for i, rows in enumerate(tokens)]
    return candidates, tokens


def ours(rows: Rows) -> list[np.ndarray]:
    counted = CountedCaptions.of(*rows)
    scored = (bleu(counted), cider_d(counted), rouge_l(*rows))
    return [np.vstack([list(scores.values.values()), scores.per_caption]) for scores in scored]


def theirs(rows: Rows) -> list[np.ndarray]:
    res = {i: [row] for i, row in enumerate(rows[0])}
    gts = dict(enumerate(rows[1]))
    bleus, of_each = Bleu(4).compute_score(gts, res, verbose=0)
    others = [scorer.compute_score(gts, res) for scorer in (Cider(), Rouge())]
    return [
        np.vstack([bleus, np.transpose(of_each)]),
        *(np.concatenate([[value], each])[:, None] for value, each in others),
    ]


def medians(
    clock: Callable[[], float], mine: Callable[[], object], peer: Callable[[], object], repeats: int
) -> list[float]:
    """Seconds of ours, of the peer, and their ratio."""
    measured = []
    for _ in range(repeats):
        begin = clock()
        mine()
        middle = clock()
        peer()
        measured.append((middle - begin, clock() - middle))
    columns = [*zip(*measured, strict=True), [peer / own for own, peer in measured]]
    return [statistics.median(column) for column in columns]


def tokenizers(captions: list[str], repeats: int) -> Row:
    """From captions to tokens, by the wall clock."""
    jar = JarTokenizer()

    def tokenize_all() -> None:
        forget()
        for caption in captions:
            tokenize(caption)

    seconds = medians(time.perf_counter, tokenize_all, lambda: jar(captions), repeats)
    return Row("ptb tokenizer, wall clock", len(captions), *seconds, None)


def measure(references: Path, images: int, repeats: int) -> list[Row]:
    """The scorers, and the tokenizer."""
    rows = corpus(references, images)
    difference = max(float(np.abs(a - b).max()) for a, b in zip(ours(rows), theirs(rows), strict=True))
    seconds = medians(time.thread_time, lambda: ours(rows), lambda: theirs(rows), repeats)
    captions = [captions[0] for captions in read_references(references).values()][:5000]
    scorers = Row("bleu, cider-d, rouge-l", 6 * len(rows[0]), *seconds, difference)
    return [scorers, tokenizers(captions, repeats)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--references", type=Path, required=True, help="COCO's captions_val2017.json, plain or .gz"
    )
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    table = measure(options.references, options.images, options.repeats)
    settings = {"images": options.images, "repeats": options.repeats, "python": platform.python_version()}
    write_record(options.out, "caption_metrics.py", settings, {"rows": table}, ("numpy",), threads="")
    for row in table:
        print(f"{row.what}: {row.ratio:.1f} x  (ours {row.ours_s:.3f} s, peer {row.peer_s:.3f} s)")


if __name__ == "__main__":
    main()
