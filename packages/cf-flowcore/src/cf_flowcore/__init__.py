"""Flow matching from any source to any target: paths, losses, ODE solvers, guidance."""

from cf_flowcore.adjoint import solve_adjoint
from cf_flowcore.bits import BitsPerDim, bits_per_dim
from cf_flowcore.convert import as_velocity, convert
from cf_flowcore.coupling import independent, optimal_transport
from cf_flowcore.diffusion_path import VE, VP
from cf_flowcore.errors import NonFiniteVelocity, SolveError, StepUnderflow, TooManyEvaluations
from cf_flowcore.grid import karras_grid, shifted_grid
from cf_flowcore.guidance import autoguidance, classifier_free, two_fields
from cf_flowcore.latent_math import add, combine, interpolate, interpolate_spherical, restandardise, subtract
from cf_flowcore.likelihood import LogProb, log_prob, sample_with_log_prob, standard_normal
from cf_flowcore.loss import flow_matching_loss, noise_matching_loss, score_matching_loss
from cf_flowcore.multiscale import multiscale_loss, scale_losses, scale_target
from cf_flowcore.null_targets import draw_null, null_targets
from cf_flowcore.oracle import exact_velocity
from cf_flowcore.path import AffinePath, CondOT, Cosine, Path, Polynomial, expand_like
from cf_flowcore.reschedule import reschedule
from cf_flowcore.solution import Solution
from cf_flowcore.solve import solve
from cf_flowcore.times import (
    LogitNormal,
    Mixture,
    Mode,
    Power,
    Shifted,
    Stratified,
    Uniform,
    logit_normal,
    resolution_factor,
    shift,
    uniform,
)
from cf_flowcore.torchdiffeq_backend import solve_torchdiffeq
from cf_flowcore.velocity import IndicatorVelocity, Velocity

__all__ = [
    "VE",
    "VP",
    "AffinePath",
    "BitsPerDim",
    "CondOT",
    "Cosine",
    "IndicatorVelocity",
    "LogProb",
    "LogitNormal",
    "Mixture",
    "Mode",
    "NonFiniteVelocity",
    "Path",
    "Polynomial",
    "Power",
    "Shifted",
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
    "bits_per_dim",
    "classifier_free",
    "combine",
    "convert",
    "draw_null",
    "exact_velocity",
    "expand_like",
    "flow_matching_loss",
    "independent",
    "interpolate",
    "interpolate_spherical",
    "karras_grid",
    "log_prob",
    "logit_normal",
    "multiscale_loss",
    "noise_matching_loss",
    "null_targets",
    "optimal_transport",
    "reschedule",
    "resolution_factor",
    "restandardise",
    "sample_with_log_prob",
    "scale_losses",
    "scale_target",
    "score_matching_loss",
    "shift",
    "shifted_grid",
    "solve",
    "solve_adjoint",
    "solve_torchdiffeq",
    "standard_normal",
    "subtract",
    "two_fields",
    "uniform",
]
