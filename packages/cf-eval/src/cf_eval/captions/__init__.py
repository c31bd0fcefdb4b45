"""Caption metrics: the COCO tokenizer and the scores that papers on captioning print."""

from cf_eval.captions.bootstrap import bootstrap_intervals
from cf_eval.captions.caption_metrics import CaptionMetrics, score_captions
from cf_eval.captions.coco_files import read_candidates, read_references
from cf_eval.captions.document_frequency import DocumentFrequencies
from cf_eval.captions.protocol import CaptionProtocol
from cf_eval.captions.ptb_tokenizer import tokenize
from cf_eval.captions.score import CaptionScores

__all__ = [
    "CaptionMetrics",
    "CaptionProtocol",
    "CaptionScores",
    "DocumentFrequencies",
    "bootstrap_intervals",
    "read_candidates",
    "read_references",
    "score_captions",
    "tokenize",
]
