"""`crossflow show RUN`: what a run folder tells, as a table, as pictures and as one HTML file."""
