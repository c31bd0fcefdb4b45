"""`cf-eval captions CANDIDATES REFERENCES`."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from cf_eval.captions.caption_metrics import score_captions
from cf_eval.captions.coco_files import read_candidates, read_references
from cf_eval.captions.document_frequency import DocumentFrequencies
from cf_eval.captions.protocol import METRICS, TOKENIZERS, CaptionProtocol
from cf_eval.captions.score import CaptionScores
from cf_eval.cli_report import Output, Place, note, one_of, require_writable, write_whole

Row = TypeVar("Row")


@dataclass(frozen=True)
class Captions:
    """Scores of captions as COCO's evaluation gives them."""

    candidates: Annotated[Place, tyro.conf.arg(metavar="CANDIDATES")]
    """JSON: a list of {"image_id", "caption"}, or {id: caption}; plain or .gz."""
    references: Annotated[Place, tyro.conf.arg(metavar="REFERENCES")]
    """JSON: COCO annotations, or {id: [captions]}; plain or .gz."""
    metrics: Annotated[tuple[str, ...], one_of(tuple(METRICS))] = ("bleu", "cider_d", "rouge_l")
    tokenizer: Annotated[str, one_of(tuple(TOKENIZERS))] = "python"
    only_candidates: bool = False
    """Leave out references of images that have no candidate, as COCO's evaluation does."""
    confidence: float | None = None
    """Level of bootstrap intervals, such as 0.95."""
    resamples: int = 1000
    seed: int = 0
    frequencies: Path | None = None
    """Document frequencies for CIDEr-D, as DocumentFrequencies.save writes them."""
    java: str = "java"
    ptb_jar: Path | None = None
    meteor_jar: Path | None = None
    spice_jar: Path | None = None
    per_caption: Path | None = None
    """File for the scores of each caption, as JSON: {value: {image id: score}}."""
    output: Output = field(default_factory=Output)

    def run(self) -> None:
        self.output.check()
        require_writable(self.per_caption)
        protocol = self.protocol()
        candidates, references = alike(read_candidates(self.candidates), read_references(self.references))
        if self.only_candidates:
            references = {image: rows for image, rows in references.items() if image in candidates}
        scores = quietly(candidates, references, protocol)
        self.output.show(scores.result)
        if self.per_caption is not None:
            write_whole(self.per_caption, json.dumps(scores.per_caption, ensure_ascii=False) + "\n")

    def protocol(self) -> CaptionProtocol:
        """Raises ValueError for unknown names, before anything is read."""
        return CaptionProtocol(
            metrics=self.metrics,
            tokenizer=self.tokenizer,
            frequencies=None if self.frequencies is None else DocumentFrequencies.load(self.frequencies),
            confidence=self.confidence,
            resamples=self.resamples,
            seed=self.seed,
            java=self.java,
            ptb_jar=self.ptb_jar,
            meteor_jar=self.meteor_jar,
            spice_jar=self.spice_jar,
        )


def alike(
    candidates: Mapping[Any, str], references: Mapping[Any, list[str]]
) -> tuple[dict[Any, str], dict[Any, list[str]]]:
    """Both by ids of one kind: keys of a JSON object are strings, where COCO's annotations have numbers."""
    kinds = {type(image) for image in (*candidates, *references)}
    if len(kinds) < 2:
        return dict(candidates), dict(references)
    return _by_text(candidates), _by_text(references)


def _by_text(captions: Mapping[Any, Row]) -> dict[Any, Row]:
    return {str(image): of_image for image, of_image in captions.items()}


def quietly(
    candidates: Mapping[Any, str], references: Mapping[Any, list[str]], protocol: CaptionProtocol
) -> CaptionScores:
    """Scores, with warnings as lines of their own. ValueError for what is not text, and for Java that fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # they are in the result, and printed below
        try:
            scores = score_captions(candidates, references, protocol)
        except (TypeError, RuntimeError) as error:  # not text; Java that is missing or fails
            raise ValueError(str(error)) from error
    told = scores.result.details["warnings"]
    for sentence in told if isinstance(told, list) else []:
        note(str(sentence))
    return scores
