"""Generative-model metrics that name their protocol."""

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
from cf_eval.frechet import FrechetDistance, frechet_distance
from cf_eval.moments import Moments
from cf_eval.result import Result
from cf_eval.scene_reader import Detection, SceneReader, SceneReading

__all__ = [
    "ATTRIBUTES",
    "TASKS",
    "CompositionScore",
    "Detection",
    "Expectation",
    "FrechetDistance",
    "Moments",
    "Result",
    "SceneReader",
    "SceneReading",
    "Wanted",
    "everything_right",
    "frechet_distance",
    "only",
    "satisfies",
]
