"""The figure page: strips, sweeps, walks, sums and curves."""
