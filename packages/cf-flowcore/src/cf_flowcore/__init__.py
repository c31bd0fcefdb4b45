"""Flow matching from any source to any target: paths, losses, ODE solvers, guidance."""

from cf_flowcore.errors import NonFiniteVelocity, SolveError, StepUnderflow, TooManyEvaluations
from cf_flowcore.guidance import autoguidance, classifier_free
from cf_flowcore.latent_math import add, combine, interpolate, interpolate_spherical, restandardise, subtract
from cf_flowcore.loss import flow_matching_loss
from cf_flowcore.multiscale import multiscale_loss, scale_losses, scale_target
from cf_flowcore.null_targets import draw_null, null_targets
from cf_flowcore.path import AffinePath, CondOT, Path, expand_like
from cf_flowcore.solve import Solution, solve
from cf_flowcore.times import LogitNormal, Mixture, Power, Stratified, Uniform, logit_normal, uniform
from cf_flowcore.velocity import IndicatorVelocity, Velocity

__all__ = [
    "AffinePath",
    "CondOT",
    "IndicatorVelocity",
    "LogitNormal",
    "Mixture",
    "NonFiniteVelocity",
    "Path",
    "Power",
    "Solution",
    "SolveError",
    "StepUnderflow",
    "Stratified",
    "TooManyEvaluations",
    "Uniform",
    "Velocity",
    "add",
    "autoguidance",
    "classifier_free",
    "combine",
    "draw_null",
    "expand_like",
    "flow_matching_loss",
    "interpolate",
    "interpolate_spherical",
    "logit_normal",
    "multiscale_loss",
    "null_targets",
    "restandardise",
    "scale_losses",
    "scale_target",
    "solve",
    "subtract",
    "uniform",
]
