"""Generative-model metrics that name their protocol."""

from cf_eval.frechet import FrechetDistance, frechet_distance
from cf_eval.moments import Moments
from cf_eval.result import Result

__all__ = ["FrechetDistance", "Moments", "Result", "frechet_distance"]
