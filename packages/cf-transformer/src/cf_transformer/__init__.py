"""The DiMR multi-resolution velocity network with time-dependent normalisation."""
