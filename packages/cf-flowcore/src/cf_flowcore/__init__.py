"""Flow matching from any source to any target: paths, losses, ODE solvers, guidance."""
