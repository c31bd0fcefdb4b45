"""Caption scores in one call, with a result that says how they were measured.

>>> scores = score_captions({"a": "a cat sits", "b": "two dogs"}, {"a": ["A cat sits."], "b": ["Two dogs run."]})
>>> scores["bleu_4"], scores.per_caption["rouge_l"]["a"], scores.result.protocol
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cf_eval.captions.bootstrap import bootstrap_intervals
from cf_eval.captions.coco_files import ImageId
from cf_eval.captions.protocol import METRICS, CaptionProtocol, Rows, Tools
from cf_eval.captions.scores import Scores
from cf_eval.result import Json, Result


@dataclass(frozen=True)
class CaptionScores:
    """result: the corpus values with their protocol. per_caption: of each value, the score of each image by its id.

    Images without ids are numbered in the order they came. result.details names the tokenizer, the number of
    references, warnings and, where asked for, confidence intervals.
    """

    result: Result
    per_caption: Mapping[str, Mapping[ImageId, float]]

    def __getitem__(self, name: str) -> float:
        """One corpus value: scores["cider_d"]."""
        if name not in self.result.values:
            raise KeyError(f"no value {name!r}; known: {', '.join(self.result.values)}")
        return self.result.values[name]


def score_rows(
    ids: Sequence[ImageId], rows: Rows, protocol: CaptionProtocol, tools: Tools, details: Mapping[str, Json]
) -> CaptionScores:
    """Score rows of tokens, one id for each image. `details` go into the result."""
    scored = [METRICS[name](rows, tools) for name in dict.fromkeys(protocol.metrics)]
    values = {name: value for scores in scored for name, value in scores.values.items()}
    told = _warnings(rows, protocol)
    for sentence in told:
        warnings.warn(sentence, stacklevel=3)
    known: dict[str, Json] = {
        "tokenizer": protocol.tokenizer,
        "references": sum(map(len, rows.references)),
        "warnings": [*told],
    }
    result = Result(
        "captions",
        values,
        protocol.describe(),
        len(ids),
        {**known, **_intervals(scored, protocol), **details},
    )
    return CaptionScores(result, _by_id(ids, scored))


def _by_id(ids: Sequence[ImageId], scored: Sequence[Scores]) -> dict[str, dict[ImageId, float]]:
    return {
        name: dict(zip(ids, column.tolist(), strict=True))
        for scores in scored
        for name, column in zip(scores.names, scores.per_caption.T, strict=True)
    }


def _intervals(scored: Sequence[Scores], protocol: CaptionProtocol) -> dict[str, Json]:
    level, resamples, seed = protocol.confidence, protocol.resamples, protocol.seed
    if level is None:
        return {}
    found = [bootstrap_intervals(scores, level, resamples, seed) for scores in scored]
    bounds: dict[str, Json] = {name: [*pair] for one in found for name, pair in one.items()}
    return {"confidence": level, "intervals": bounds, "resamples": resamples, "seed": seed}


def _warnings(rows: Rows, protocol: CaptionProtocol) -> list[str]:
    told = []
    if "cider_d" in protocol.metrics and protocol.frequencies is None and len(rows.candidates) == 1:
        told.append(
            "CIDEr-D of one image is 0 whatever it says: every idf is ln 1; pass document frequencies"
        )
    references = [row for of_image in rows.references for row in of_image]
    for what, captions in (("candidates", rows.candidates), ("references", references)):
        empty = sum(not caption.strip() for caption in captions)
        if empty:
            told.append(f"{empty} of {len(captions)} {what} have no tokens")
    return told
