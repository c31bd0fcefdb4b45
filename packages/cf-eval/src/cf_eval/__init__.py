"""Generative-model metrics that name their protocol.

Names used in every project are here. More is behind doors of their own: `cf_eval.captions` (tokenizer, COCO files),
`cf_eval.depth`, `cf_eval.geneval`, `cf_eval.images`, `cf_eval.likelihood`, `cf_eval.curves`; `cf_eval.hf` has the
metrics for `evaluate`, and `cf_eval.cli` is the command `cf-eval`.
"""

from cf_eval.captions.caption_metrics import CaptionMetrics, score_captions
from cf_eval.captions.protocol import CaptionProtocol
from cf_eval.clip_encoders import open_clip_encoder, transformers_clip_encoder
from cf_eval.clip_score import ClipScore
from cf_eval.composition import (
    ATTRIBUTES,
    TASKS,
    CompositionScore,
    Expectation,
    Wanted,
    everything_right,
    only,
    satisfies,
)
from cf_eval.curves import QualityCurve, QualityPoint
from cf_eval.depth.protocols import DepthProtocol, depth_protocol
from cf_eval.depth.score import DepthMetrics, score_depth
from cf_eval.depth.tables import DepthPair
from cf_eval.depth.tables import table_5 as depth_table_5
from cf_eval.depth.tables import table_8 as depth_table_8
from cf_eval.frechet import FrechetDistance, frechet_distance
from cf_eval.geneval.colours import ClipColours, PaletteColours
from cf_eval.geneval.fastest_det import load_fastest_det
from cf_eval.geneval.prompts import geneval_prompts
from cf_eval.geneval.score import GenEval
from cf_eval.geneval.transformers_detector import transformers_detector
from cf_eval.images.cmmd import CMMD
from cf_eval.images.features import (
    clip_features,
    dinov2_features,
    efficientnet_lite0_features,
    inception_features,
)
from cf_eval.images.fid import FID
from cf_eval.images.inception_score import InceptionScore, Splits
from cf_eval.images.kid import KID, Subsets
from cf_eval.images.paired_quality import PairedQuality
from cf_eval.images.prdc import PRDC, Neighbourhood
from cf_eval.likelihood import BitsPerDimension
from cf_eval.moments import Moments
from cf_eval.reconstruction import TokenReconstruction
from cf_eval.result import Result
from cf_eval.scene_reader import Detection, SceneReader, SceneReading

__all__ = [
    "ATTRIBUTES",
    "CMMD",
    "FID",
    "KID",
    "PRDC",
    "TASKS",
    "BitsPerDimension",
    "CaptionMetrics",
    "CaptionProtocol",
    "ClipColours",
    "ClipScore",
    "CompositionScore",
    "DepthMetrics",
    "DepthPair",
    "DepthProtocol",
    "Detection",
    "Expectation",
    "FrechetDistance",
    "GenEval",
    "InceptionScore",
    "Moments",
    "Neighbourhood",
    "PairedQuality",
    "PaletteColours",
    "QualityCurve",
    "QualityPoint",
    "Result",
    "SceneReader",
    "SceneReading",
    "Splits",
    "Subsets",
    "TokenReconstruction",
    "Wanted",
    "clip_features",
    "depth_protocol",
    "depth_table_5",
    "depth_table_8",
    "dinov2_features",
    "efficientnet_lite0_features",
    "everything_right",
    "frechet_distance",
    "geneval_prompts",
    "inception_features",
    "load_fastest_det",
    "only",
    "open_clip_encoder",
    "satisfies",
    "score_captions",
    "score_depth",
    "transformers_clip_encoder",
    "transformers_detector",
]
