"""What is measured of a training, on what, and by which numbers."""
