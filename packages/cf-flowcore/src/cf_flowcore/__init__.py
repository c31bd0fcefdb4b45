"""Flow matching from any source to any target: paths, losses, ODE solvers, guidance."""

from cf_flowcore.convert import as_velocity, convert
from cf_flowcore.diffusion_path import VE, VP
from cf_flowcore.errors import NonFiniteVelocity, SolveError, StepUnderflow, TooManyEvaluations
from cf_flowcore.guidance import autoguidance, classifier_free
from cf_flowcore.latent_math import add, combine, interpolate, interpolate_spherical, restandardise, subtract
from cf_flowcore.loss import flow_matching_loss, noise_matching_loss, score_matching_loss
from cf_flowcore.multiscale import multiscale_loss, scale_losses, scale_target
from cf_flowcore.null_targets import draw_null, null_targets
from cf_flowcore.oracle import exact_velocity
from cf_flowcore.path import AffinePath, CondOT, Cosine, Path, Polynomial, expand_like
from cf_flowcore.reschedule import reschedule
from cf_flowcore.solve import Solution, solve
from cf_flowcore.times import LogitNormal, Mixture, Power, Stratified, Uniform, logit_normal, uniform
from cf_flowcore.velocity import IndicatorVelocity, Velocity

__all__ = [
    "VE",
    "VP",
    "AffinePath",
    "CondOT",
    "Cosine",
    "IndicatorVelocity",
    "LogitNormal",
    "Mixture",
    "NonFiniteVelocity",
    "Path",
    "Polynomial",
    "Power",
    "Solution",
    "SolveError",
    "StepUnderflow",
    "Stratified",
    "TooManyEvaluations",
    "Uniform",
    "Velocity",
    "add",
    "as_velocity",
    "autoguidance",
    "classifier_free",
    "combine",
    "convert",
    "draw_null",
    "exact_velocity",
    "expand_like",
    "flow_matching_loss",
    "interpolate",
    "interpolate_spherical",
    "logit_normal",
    "multiscale_loss",
    "noise_matching_loss",
    "null_targets",
    "reschedule",
    "restandardise",
    "scale_losses",
    "scale_target",
    "score_matching_loss",
    "solve",
    "subtract",
    "uniform",
]
