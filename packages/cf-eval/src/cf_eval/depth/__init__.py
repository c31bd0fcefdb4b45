"""Depth metrics: errors, crops, alignments, and the protocols behind tables 5 and 8 of CrossFlow."""
